"""Every setting of `segnetr classify`, and how they are loaded.

Settings that segmentation and classification share (`LoopConfig`, `IntensityConfig`) are in
`segnetr.config.schema.segmentation`; augmentation, mixing and regularization are in
`segnetr.config.schema.classification_recipe`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from segnetr.config.load import merge_settings, parse_plain
from segnetr.config.schema.classification_recipe import (
    ClassificationAugmentConfig,
    MixingConfig,
    RegularizationConfig,
)
from segnetr.config.schema.intensity import IntensityConfig
from segnetr.config.schema.segmentation import LoopConfig
from segnetr.config.schema.value_types import Fraction, Natural, Positive

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TableConfig:
    """Table of labels and its columns, for the dataset "table".

    Attributes:
        file: The table, relative to the data folder. None: the only table in the folder, or the
            official ones of ISIC 2017.
        images: Folder of the images, relative to the data folder. None: the data folder.
        id_column: Column with the image name. None: found by its usual names.
        label_columns: One column of class names, or one column of 0 and 1 per class. Empty: found
            by their usual names.
        group_column: Column of the group; all images of a group are in the same split. None: found
            by its usual names, also in other tables of the folder.
        multi_label: Whether an image can have several labels, or none.
    """

    file: str | None = None
    images: str | None = None
    id_column: str | None = None
    label_columns: tuple[str, ...] = ()
    group_column: str | None = None
    multi_label: bool = False


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClassificationDataConfig:
    """Labeled images, split and loading.

    Attributes:
        dataset: Format of the dataset.
        data_dir: Folder of the dataset, or the file of "medmnist".
        subset: Name of the "medmnist" file without its suffix.
        class_names: Class names of "medmnist", where the published ones are wrong.
        in_channels: 1 reads the images of "imagefolder" and "table" as gray values, 3 as colors.
            None: 3.
        table: Columns of "table".
        validation_share: Fraction of the cases for validation, where no official split exists.
        test_share: Fraction of the cases for testing, likewise.
        split_seed: Seed of such a split.
        skip_invalid: Train without the images that have issues, and list them in the run.
        cache_dir: Folder of decoded, downsampled copies. None: the user's cache folder.
        cache: Write such copies. Without them, large datasets need no second copy on disk; their
            files are decoded, and found invalid, when they are used.
        workers: Number of data loading processes. 0 loads in the training process.
        max_pixels: Largest number of pixels of an image. Larger ones are refused before memory is
            allocated.
        intensity: Normalization of gray values and colors.
    """

    dataset: Literal["cifar10", "cifar100", "imagefolder", "medmnist", "table"] = "imagefolder"
    data_dir: Path | None = None
    subset: str | None = None
    class_names: tuple[str, ...] = ()
    in_channels: Literal[1, 3] | None = None
    table: TableConfig = Field(default_factory=TableConfig)
    validation_share: Fraction = 0.15
    test_share: Fraction = 0.15
    split_seed: int = 0
    skip_invalid: bool = False
    cache_dir: Path | None = None
    cache: bool = True
    workers: Natural = 2
    max_pixels: Positive = 200_000_000
    intensity: IntensityConfig = Field(
        default_factory=lambda: IntensityConfig(mean=(0.5,), std=(0.25,))
    )


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class BackboneConfig:
    """The network.

    Attributes:
        name: Backbone such as cvt_13 or mobilevit_xxs (segnetr models list).
        pretrained: Published checkpoint that training starts from. None: from scratch. A run or
            model folder is `train.weights` instead.
        overrides: Further fields of the backbone's configuration by name.
    """

    name: str = "mobilevit_xxs"
    pretrained: Path | None = None
    overrides: Mapping[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClassifyTrainConfig(LoopConfig):
    """Training settings of a classifier; `LoopConfig` holds those shared with segmentation.

    The loss is the cross-entropy; for several labels per image, the mean over the classes of the
    binary cross-entropy.

    Attributes:
        monitor: Validation score that selects the best weights.
    """

    monitor: Literal["accuracy", "balanced_accuracy", "auroc", "f1", "loss"] = "balanced_accuracy"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClassifyPredictConfig:
    """How a classifier is applied to a file.

    Attributes:
        batch_size: Images per forward pass.
        tta: Test-time augmentation. "flips": mean over an image and its mirror image.
    """

    batch_size: Positive = 32
    tta: Literal["none", "flips"] = "none"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClassifyEvaluateConfig:
    """How probabilities are scored.

    Attributes:
        bootstrap: Resamples of the 95 % interval.
        calibration_bins: Bins of equal width for the calibration error.
        seed: Seed of the resampling.
    """

    bootstrap: Natural = 1000
    calibration_bins: Positive = 15
    seed: int = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClassifyConfig:
    """Everything that defines a run of `segnetr classify`; written into the run.

    Attributes:
        task: Distinguishes such a configuration from one of segmentation.
        data: The images.
        augment: Augmentation of training images.
        mixing: Mixing of the images of a batch.
        regularization: Further regularization.
        backbone: The network.
        train: The training.
        predict: How the classifier is applied.
        evaluate: How it is scored.
    """

    task: Literal["classification"] = "classification"
    data: ClassificationDataConfig = Field(default_factory=ClassificationDataConfig)
    augment: ClassificationAugmentConfig = Field(default_factory=ClassificationAugmentConfig)
    mixing: MixingConfig = Field(default_factory=MixingConfig)
    regularization: RegularizationConfig = Field(default_factory=RegularizationConfig)
    backbone: BackboneConfig = Field(default_factory=BackboneConfig)
    train: ClassifyTrainConfig = Field(default_factory=ClassifyTrainConfig)
    predict: ClassifyPredictConfig = Field(default_factory=ClassifyPredictConfig)
    evaluate: ClassifyEvaluateConfig = Field(default_factory=ClassifyEvaluateConfig)


def load_classify_config(
    recipes: Sequence[str | Path] = (),
    *,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> ClassifyConfig:
    """Read recipes and files, apply flags and assignments, and check the result.

    Args:
        recipes: As in `segnetr.config.load.load_config`.
        flags: Values by dotted key; None means that the flag was not given.
        assignments: "a.b=value" strings of `--set`.

    Raises:
        UsageError: If a file is missing or not YAML, or a key or value is invalid.
    """
    merged = merge_settings(recipes, flags=flags, assignments=assignments)
    return parse_plain(ClassifyConfig, merged)  # type: ignore[no-any-return]


def is_classifier_run(run_folder: Path) -> bool:
    """Return whether a run is one of `segnetr classify`, according to its configuration.

    Raises:
        UsageError: If the configuration cannot be read.
    """
    path = run_folder / "config.yaml"
    return path.is_file() and merge_settings([path]).get("task") == "classification"

"""The settings of a training of a backbone as a classifier.

What segmentation and classification share (`LoopConfig`, `IntensityConfig`) comes from
`segnetr.config.schema.segmentation`; what makes up a recipe of augmentation and mixing stands in
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
from segnetr.config.schema.segmentation import (
    IntensityConfig,
    LoopConfig,
    Natural,
    Positive,
    Share,
)

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TableConfig:
    """Which table of labels, and which of its columns say what; for the data set "table".

    Attributes:
        file: The table, below the data folder; None: the only one there, or the official ones of
            ISIC 2017.
        images: Folder of the images, below the data folder; None: the data folder.
        id_column: Names the image; None: found by its usual names.
        label_columns: One column of class names, or a column of 0 and 1 for each class; empty:
            found by their usual names.
        group_column: Images of one group stay in one part; None: found by its usual names, also
            in other tables of the folder.
        multi_label: A image has any number of the labels.
    """

    file: str | None = None
    images: str | None = None
    id_column: str | None = None
    label_columns: tuple[str, ...] = ()
    group_column: str | None = None
    multi_label: bool = False


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClassificationDataConfig:
    """Which labeled images, where they lie, how they are split and loaded.

    Attributes:
        dataset: The format.
        data_dir: The folder, or for "medmnist" also the file.
        subset: For "medmnist": name of the file without its ending.
        class_names: For "medmnist": names of the classes where the published ones are not right.
        in_channels: For "imagefolder" and "table": 1 reads the images as gray values, 3 as
            colors; None: 3.
        table: For "table": columns.
        validation_share: Share of the divided cases for validation where no part is official.
        test_share: Share of the divided cases for testing, likewise.
        split_seed: Seed of such a split.
        skip_invalid: Train without the images that have issues, and list them in the run.
        cache_dir: Folder of decoded, reduced copies; None: the user's cache folder.
        cache: Keep such copies; off for sets that no disk holds twice, whose files are then
            decoded, and found invalid, when it is their turn.
        workers: Worker processes for loading; 0 loads in the training process.
        max_pixels: Larger images are refused before memory is taken for them.
        intensity: How values are normalized.
    """

    dataset: Literal["cifar10", "cifar100", "imagefolder", "medmnist", "table"] = "imagefolder"
    data_dir: Path | None = None
    subset: str | None = None
    class_names: tuple[str, ...] = ()
    in_channels: Literal[1, 3] | None = None
    table: TableConfig = Field(default_factory=TableConfig)
    validation_share: Share = 0.15
    test_share: Share = 0.15
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
        name: An entry of `hybrid_backbones`, see `hybrid_backbones.list_models()`.
        pretrained: A checkpoint of the entry in its published layout; None: from scratch. (A run
            of ours to start from is `train.weights`.)
        overrides: Further fields of the entry's configuration by name.
    """

    name: str = "mobilevit_xxs"
    pretrained: Path | None = None
    overrides: Mapping[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClassifyTrainConfig(LoopConfig):
    """How a classifier is trained; see `LoopConfig` for what it shares with segmentation.

    The loss is the cross entropy; where a image has several labels, the mean over the classes of
    the binary one.

    Attributes:
        monitor: The validation score that decides which weights are best.
    """

    monitor: Literal["accuracy", "balanced_accuracy", "auroc", "f1", "loss"] = "balanced_accuracy"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClassifyPredictConfig:
    """How a classifier is applied to a file.

    Attributes:
        batch_size: Images in one forward pass.
        tta: "flips": mean over a image and its mirror image.
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
    """Everything a run of `segnetr classify` is made of; written into the run.

    Attributes:
        task: Tells such a configuration from one of segmentation.
        data: The images.
        augment: Random changes of training images.
        mixing: Mixing images of a batch.
        regularization: What else keeps the network from learning its training set by heart.
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
    """Read recipes and files, put flags and assignments on top, and check the result.

    Args:
        recipes: As in `segnetr.config.load.load_config`.
        flags: Values by dotted key; None means that the flag was not given.
        assignments: Texts "a.b=value" of `--set`.

    Raises:
        UsageError: If a file is missing or no YAML, or a key or value does not fit.
    """
    merged = merge_settings(recipes, flags=flags, assignments=assignments)
    return parse_plain(ClassifyConfig, merged)  # type: ignore[no-any-return]


def is_classifier_run(run_folder: Path) -> bool:
    """Tell by its configuration whether a run is one of `segnetr classify`.

    Raises:
        UsageError: If the configuration is not readable.
    """
    path = run_folder / "config.yaml"
    return path.is_file() and merge_settings([path]).get("task") == "classification"

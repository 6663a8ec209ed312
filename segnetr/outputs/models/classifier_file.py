"""Read and write the model folder of a classifier: the weights of a backbone and a card.

The tensors have the names of the backbone without a prefix, so an encoder can start from the same
folder. The format is that of `segnetr.outputs.models.model_file`: safetensors, JSON, hashes, no
code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import from_json
from torch import Tensor

from hybrid_backbones import Backbone, create_model
from segnetr import __version__
from segnetr.config.schema.classification import ClassifyPredictConfig
from segnetr.config.schema.classification_recipe import ClassificationAugmentConfig
from segnetr.config.schema.segmentation import ImageSize, IntensityConfig
from segnetr.errors import ModelFileError
from segnetr.outputs.models.model_file import (
    CARD_NAME,
    WEIGHTS_NAME,
    Name,
    find_model_folder,
    read_sealed_model,
    write_sealed_model,
)
from segnetr.outputs.models.state_dict_io import load_into

_TASK = "classification"
_MOST_CARD_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ClassifierCard:
    """Metadata of a classifier: everything except its weights.

    Attributes:
        task: Distinguishes this card from that of a segmentation model.
        backbone: Name of the entry of `hybrid_backbones`.
        overrides: Fields of the entry's configuration that were changed.
        classes: Class names; output i is class i.
        num_classes: Their number, the width of the classifier.
        multi_label: Multi-label: an image has any number of labels, each with its own probability.
        in_channels: Channels of the images.
        image_size: (height, width) in pixels of the network's input.
        intensity: How values are normalized.
        fitting: How images are resized to that size: its `evaluation_*` and `interpolation`.
        predict: How the network is applied.
        dataset: Name of the training data.
        data_license: License of the training data.
        split_sha256: Hash of the split.
        scores: Validation scores by name.
        versions: Versions of the packages the model was trained with, by name.
        created_by: The application and its version.
        format_version: Version of this format.
    """

    task: Literal["classification"]
    backbone: Annotated[str, Field(min_length=1, max_length=200)]
    overrides: dict[str, Any] = Field(default_factory=dict)
    classes: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100_000)]
    num_classes: Annotated[int, Field(ge=1)]
    multi_label: bool
    in_channels: Annotated[int, Field(ge=1, le=64)]
    image_size: ImageSize
    intensity: IntensityConfig
    fitting: ClassificationAugmentConfig
    predict: ClassifyPredictConfig
    dataset: str = ""
    data_license: str = ""
    split_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    scores: dict[str, FiniteFloat] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    created_by: str = f"segnetr {__version__}"
    format_version: Literal[1] = 1

    @model_validator(mode="after")
    def _check_counts(self) -> "ClassifierCard":
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is named twice")
        if len(self.classes) != self.num_classes:
            raise ValueError(f"{len(self.classes)} class names for {self.num_classes} classes")
        counts = {len(self.intensity.mean), len(self.intensity.std)}
        if self.intensity.kind == "fixed" and not counts <= {1, self.in_channels}:
            raise ValueError(f"intensity does not fit {self.in_channels} channel(s)")
        return self


_CARD: TypeAdapter[ClassifierCard] = TypeAdapter(ClassifierCard)


def write_classifier(
    folder: Path, state_dict: Mapping[str, Tensor], *, card: ClassifierCard
) -> None:
    """Write a model folder atomically; an existing one is replaced.

    Args:
        folder: The folder itself, `model/` inside a run.
        state_dict: Weights and buffers by the backbone's own names.
        card: Metadata.

    Raises:
        WriteError: If it cannot be written. An existing folder is then unchanged.
    """
    write_sealed_model(folder, state_dict, card=_CARD.dump_python(card, mode="json"))


def is_classifier(path: Path) -> bool:
    """Return whether a run or a model folder contains a classifier, according to its card."""
    try:
        with (find_model_folder(path) / CARD_NAME).open("rb") as file:
            content = from_json(file.read(_MOST_CARD_BYTES))
    except (OSError, ValueError, ModelFileError):
        return False  # the reader of the model raises the error
    return isinstance(content, dict) and content.get("task") == _TASK


def read_classifier(path: Path) -> tuple[ClassifierCard, dict[str, Tensor]]:
    """Read the card and the weights of a classifier.

    Args:
        path: A run, its model folder, or a file in that folder.

    Raises:
        ModelFileError: If there is no model, or it is damaged, modified or of another kind.
    """
    return read_sealed_model(path, _CARD)


def load_classifier(path: Path) -> tuple[ClassifierCard, Backbone]:
    """Read a classifier and load its weights into the backbone named by its card.

    Returns:
        The card, and the network in evaluation mode on the CPU.

    Raises:
        ModelFileError: As `read_classifier`, or if the weights do not match the backbone.
    """
    card, state_dict = read_classifier(path)

    def build() -> Backbone:
        network: Backbone = create_model(
            card.backbone,
            in_channels=card.in_channels,
            num_classes=card.num_classes,
            **as_fields(card.overrides),
        )
        return network

    return card, load_into(build, state_dict, file=find_model_folder(path) / WEIGHTS_NAME)


def as_fields(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Convert plain data to fields of a backbone configuration, where sequences are tuples."""
    return {name: _as_tuples(value) for name, value in overrides.items()}


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value

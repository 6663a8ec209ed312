"""Read and write the model folder: the result of a run, and the input of `predict` and `export`.

`model.safetensors` contains the weights, `model.json` the card, `MANIFEST.sha256` the hash of both.
Nothing in a model folder is executed: it contains no pickle, no import path and no class name, only
numbers and settings that are checked against the schema. Every error is a `ModelFileError`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import safetensors
import safetensors.torch
from pydantic import (
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import from_json, to_json
from torch import Tensor, nn

from segnetr import __version__
from segnetr.config.renames import rename_model_file
from segnetr.config.schema.postprocessing import PostprocessingTrial
from segnetr.config.schema.segmentation import (
    ImageSize,
    IntensityConfig,
    ModelConfig,
    PredictConfig,
)
from segnetr.config.schema.volumes import SliceConfig
from segnetr.errors import ModelFileError
from segnetr.models.build import build_model
from segnetr.outputs.models.state_dict_io import WAY_OUT, load_into, printable
from segnetr.storage.manifest import replace_folder, verify_manifest, write_bytes, write_json

MODEL_VERSION: Literal[1] = 1
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "model.json"
MODEL_FOLDER = "model"
"""Name of the model folder inside a run."""

_MOST_CARD_BYTES = 1 << 20
_MOST_ERRORS_SHOWN = 3

# Errors of safetensors and torch for invalid files, found by changing bytes.
_WEIGHT_ERRORS = (
    safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OverflowError,
    MemoryError,
)  # fmt: skip

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ModelCard:
    """Metadata of a model: everything except its weights. Plain data is parsed on creation.

    Attributes:
        architecture: Settings of the network.
        classes: Class names, background first; label i is class i.
        in_channels: Input channels of the network: the channels of a file times the number of
            slices in a stack.
        image_size: (height, width) in pixels of the training images.
        intensity: How values are normalized.
        predict: How the network is applied to a file.
        slices: How volumes are divided into inputs of the network.
        spatial_dims: 2: trained on images; 3: on slices of volumes.
        dataset: Name of the training data.
        data_license: License of the training data.
        split_sha256: Hash of the split; empty if there was none.
        scores: Validation scores by name.
        postprocessing_trials: Postprocessing steps that were tested on the validation cases, with
            their gain.
        versions: Versions of the packages the model was trained with, by name.
        created_by: The application and its version.
        format_version: Version of this format.
    """

    architecture: ModelConfig
    classes: Annotated[tuple[Name, ...], Field(min_length=2, max_length=256)]
    in_channels: Annotated[int, Field(ge=1, le=64)]
    image_size: ImageSize
    intensity: IntensityConfig
    predict: PredictConfig
    slices: SliceConfig = Field(default_factory=SliceConfig)
    spatial_dims: Literal[2, 3] = 2
    dataset: str = ""
    data_license: str = ""
    split_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    scores: dict[str, FiniteFloat] = Field(default_factory=dict)
    postprocessing_trials: tuple[PostprocessingTrial, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    created_by: str = f"segnetr {__version__}"
    format_version: Literal[1] = MODEL_VERSION

    @model_validator(mode="after")
    def _check_counts(self) -> "ModelCard":
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is named twice")
        counts = {len(self.intensity.mean), len(self.intensity.std)}
        if self.intensity.kind == "fixed" and not counts <= {1, self.in_channels}:
            raise ValueError(f"intensity does not fit {self.in_channels} channel(s)")
        if self.in_channels % self.slices.num_slices:
            raise ValueError(f"{self.in_channels} channels are not {self.slices.num_slices} slices")
        return self

    @property
    def file_channels(self) -> int:
        """Channels of one image or slice as its file has them."""
        return self.in_channels // self.slices.num_slices

    @property
    def volume_channels(self) -> int:
        """Values of each voxel of a volume; an image model takes one value and repeats it."""
        return self.file_channels if self.spatial_dims == 3 else 1


_CARD: TypeAdapter[ModelCard] = TypeAdapter(ModelCard)
Card = TypeVar("Card")


def write_model(folder: Path, state_dict: Mapping[str, Tensor], *, card: ModelCard) -> None:
    """Write a model folder atomically; an existing one is replaced.

    Args:
        folder: The folder itself, `model/` inside a run.
        state_dict: Weights and buffers by name, on any device.
        card: Metadata.

    Raises:
        WriteError: If it cannot be written. An existing folder is then unchanged.
    """
    write_sealed_model(folder, state_dict, card=_CARD.dump_python(card, mode="json"))


def write_sealed_model(
    folder: Path, state_dict: Mapping[str, Tensor], *, card: Mapping[str, object]
) -> None:
    """Write weights and the plain data of a card of any kind; see `write_model`.

    Raises:
        WriteError: As `write_model`.
    """
    # Copies, because safetensors rejects tensors that share memory or are not contiguous.
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in state_dict.items()
    }

    def build(aside: Path) -> None:
        write_bytes(aside / WEIGHTS_NAME, safetensors.torch.save(tensors))
        write_json(aside / CARD_NAME, card)

    replace_folder(build, folder)


def read_model(path: Path) -> tuple[ModelCard, dict[str, Tensor]]:
    """Read the card and the weights of a model.

    Args:
        path: A run, its model folder, or a file in that folder.

    Raises:
        ModelFileError: If there is no model, or it is damaged, modified or of another kind.
    """
    return read_sealed_model(path, _CARD)


def read_card(path: Path) -> ModelCard:
    """Read the card of a model without its weights.

    Raises:
        ModelFileError: If there is no model, or its card is damaged or of another kind.
    """
    return read_card_file(find_model_folder(path) / CARD_NAME, _CARD)


def read_sealed_model(path: Path, cards: TypeAdapter[Card]) -> tuple[Card, dict[str, Tensor]]:
    """Read weights and a card of one kind; see `read_model`.

    Raises:
        ModelFileError: As `read_model`.
    """
    folder = find_model_folder(path)
    verify_manifest(folder, required=(WEIGHTS_NAME, CARD_NAME))
    return read_card_file(folder / CARD_NAME, cards), _read_weights(folder / WEIGHTS_NAME)


def load_model(path: Path) -> tuple[ModelCard, nn.Module]:
    """Read a model and load its weights into the network described by its card.

    Args:
        path: As in `read_model`.

    Returns:
        The card, and the network in evaluation mode on the CPU.

    Raises:
        ModelFileError: As `read_model`, or if the weights do not match the architecture.
    """
    card, state_dict = read_model(path)

    def build() -> nn.Module:
        return build_model(
            card.architecture,
            in_channels=card.in_channels,
            num_classes=len(card.classes),
            image_size=card.image_size,
        )

    return card, load_into(build, state_dict, file=find_model_folder(path) / WEIGHTS_NAME)


def find_model_folder(path: Path) -> Path:
    """Return the model folder for a path: a run, a model folder, or a file in it.

    Raises:
        ModelFileError: If there is none.
    """
    if path.name in (WEIGHTS_NAME, CARD_NAME) and path.is_file():
        return path.parent
    for folder in (path / MODEL_FOLDER, path):
        if any((folder / name).exists() for name in (CARD_NAME, WEIGHTS_NAME)):
            return folder
    if not path.exists():
        raise ModelFileError(f"{path}: no such run or model folder; name one with --model")
    raise ModelFileError(
        f"{path}: contains no {CARD_NAME} and no {MODEL_FOLDER}/{CARD_NAME}; name a finished run "
        "or a model folder with --model"
    )


def read_card_file(path: Path, cards: TypeAdapter[Card]) -> Card:
    """Read and validate a JSON file of a model folder.

    Raises:
        ModelFileError: If it is missing, too large, or does not match the schema.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_CARD_BYTES + 1)
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror or error}; {WAY_OUT}") from error
    if len(content) > _MOST_CARD_BYTES:
        raise ModelFileError(f"{path}: larger than {_MOST_CARD_BYTES} bytes; {WAY_OUT}")
    try:
        plain = from_json(content, allow_inf_nan=False)
        current = rename_model_file(plain)
        # strict: "224" is no number and 1.5 no count; nothing is repaired in silence.
        return cards.validate_json(content if current == plain else to_json(current), strict=True)
    except ValidationError as error:
        raise ModelFileError(f"{path}: {_describe(error)}") from error
    except ValueError as error:
        raise ModelFileError(f"{path}: no JSON ({printable(str(error))}); {WAY_OUT}") from error


def _describe(error: ValidationError) -> str:
    """Return the errors of a card as one printable line, for any content of the file."""
    issues = error.errors(include_url=False, include_context=False)
    for issue in issues:
        if issue["loc"] == ("format_version",):
            found = printable(repr(issue["input"]))
            return (
                f"format version {found} is not known, {MODEL_VERSION} is; "
                "install the version of segnetr that wrote it"
            )
    return f"no card of a model of ours: {printable(_list_issues(error))}"


def _list_issues(error: ValidationError) -> str:
    issues = error.errors(include_url=False, include_context=False)
    shown = []
    for issue in issues[:_MOST_ERRORS_SHOWN]:
        key = ".".join(str(part) for part in issue["loc"])
        message = issue["msg"].removeprefix("Value error, ")
        shown.append(f"{key}: {message}" if key else message)
    more = len(issues) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more else "")


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        # From bytes in memory: memory-mapped tensors would change when the file is replaced.
        return dict(safetensors.torch.load(path.read_bytes()))
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror or error}; {WAY_OUT}") from error
    except _WEIGHT_ERRORS as error:
        raise ModelFileError(
            f"{path}: damaged or not a safetensors file ({printable(str(error))}); {WAY_OUT}"
        ) from error

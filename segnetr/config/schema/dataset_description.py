"""Settings of a `dataset.yaml`, which describes your own folder of images and masks."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from segnetr.config.schema.value_types import list_to_tuple

HexColor = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]
MaskValue = Annotated[int, Field(ge=-(2**31), lt=2**32)] | HexColor


def _to_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, int | str) else list_to_tuple(value)


MaskValues = Annotated[tuple[MaskValue, ...], BeforeValidator(_to_tuple), Field(min_length=1)]
ClassNames = Annotated[
    tuple[str, ...],
    BeforeValidator(list_to_tuple),
    Field(min_length=2, max_length=256),
]
ClassTable = Annotated[dict[str, MaskValues], Field(min_length=2, max_length=256)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FolderDescription:
    """Contents of a folder; either `images` and `masks`, or `pairs`.

    Attributes:
        name: Name of the dataset in reports.
        classes: Class names, background first. A list: mask value i is class i (for two classes, 0
            and the highest value). A mapping: each name to its value or values in the masks, which
            are gray values, palette indices, labels, or colors such as "#ff0000".
        channels: 1 (gray) or 3 (color); other images are converted.
        spatial_dims: 2 for images, 3 for volumes.
        images: Pattern of the image paths below `root`, see
            `segnetr.data.datasets.folder.patterns`.
        masks: Pattern of the mask paths.
        pairs: Table of pairs (.csv or .json) below `root`.
        root: Folder of the files, relative to the description.
        license: License of the data in your own words; every model trained on them contains it.
        source: Origin of the data in your own words.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    classes: ClassNames | ClassTable
    channels: Literal[1, 3]
    spatial_dims: Literal[2, 3] = 2
    images: str | None = None
    masks: str | None = None
    pairs: str | None = None
    root: Path = Path()
    license: str = "not stated"
    source: str = "not stated"

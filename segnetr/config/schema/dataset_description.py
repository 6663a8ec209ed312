"""The description of anybody's own folder of images and masks, as `dataset.yaml` holds it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

Color = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]
MaskValue = Annotated[int, Field(ge=-(2**31), lt=2**32)] | Color


def _as_tuple(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, int | str) else value


MaskValues = Annotated[tuple[MaskValue, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
ClassNames = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    Field(min_length=2, max_length=256),
]
ClassTable = Annotated[dict[str, MaskValues], Field(min_length=2, max_length=256)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FolderDescription:
    """What a folder holds and where; either `images` and `masks`, or `pairs`.

    Attributes:
        name: Name of the data set, for people.
        classes: Class names, background first: a list where mask value i is class i (or 0 and the
            highest value, where there are two), or a mapping from each name to its value or values
            in the masks: gray values, palette indices, labels, or colors as "#ff0000".
        channels: 1 (gray) or 3 (colors); images that are otherwise are converted.
        spatial_dims: 2 for images, 3 for volumes.
        images: Pattern of image paths below `root`, see
            `segnetr.data.datasets.folder.patterns`.
        masks: Pattern of the masks' paths.
        pairs: Table of pairs (.csv or .json) below `root`.
        root: The folder that holds the files, relative to the description's own.
        license: License of the data, in your words; it goes into every model trained on them.
        source: Where the data come from, in your words.
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

"""Anybody's own folder: what it holds is said by a description file, `dataset.yaml`.

`segnetr data init DIR` writes the description by looking; a person completes it.
"""

from functools import partial
from pathlib import Path

from segnetr.config.load import parse_plain, read_yaml
from segnetr.config.schema.dataset_description import FolderDescription
from segnetr.data.case import Case, DatasetSpec
from segnetr.data.datasets.folder.pair_table import read_pair_table
from segnetr.data.datasets.folder.patterns import PathPatterns, read_patterns
from segnetr.data.readers.image_file import ClassValues, FileValue
from segnetr.errors import UsageError

DESCRIPTION = "dataset.yaml"


def describe_folder(place: Path) -> DatasetSpec:
    """Read the description of a folder.

    Args:
        place: A folder that holds `dataset.yaml`, or a description file of another name.

    Returns:
        The data set; its `read_cases` reads by this description.

    Raises:
        UsageError: If there is no description, or it does not make sense.
    """
    file = find_description(place)
    description = read_description(file)
    values = read_values(description)
    _check_values(file, values)
    return DatasetSpec(
        name="folder",
        title=description.name,
        read_cases=partial(_read_described, file=file, description=description),
        classes=tuple(description.classes),
        in_channels=description.channels,
        spatial_dims=description.spatial_dims,
        counts={},
        source=description.source,
        license=description.license,
        mask_values=values,
    )


def read_folder(place: Path) -> list[Case]:
    """Read the cases of a described folder; see `describe_folder`.

    Raises:
        UsageError: As `describe_folder`; or if no file matches.
        DataError: If a table of pairs cannot be read.
    """
    return describe_folder(place).read_cases(place)


def find_description(place: Path) -> Path:
    """Find the description file of a folder, which may be named itself.

    Raises:
        UsageError: If there is none.
    """
    if place.is_file():
        return place
    if not place.is_dir():
        raise UsageError(f"{place}: there is no such folder")
    file = place / DESCRIPTION
    if not file.is_file():
        raise UsageError(
            f"{place}: {DESCRIPTION} is missing; `segnetr data init {place}` writes it by looking"
        )
    return file


def read_description(file: Path) -> FolderDescription:
    """Read and check a description file.

    Raises:
        UsageError: If it is no YAML, has unknown keys or bad values, or does not say where the
            files are.
    """
    try:
        description: FolderDescription = parse_plain(FolderDescription, read_yaml(file))
    except UsageError as error:
        raise UsageError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from None
    by_patterns = description.images is not None and description.masks is not None
    if by_patterns == (description.pairs is not None):
        raise UsageError(f"{file}: give either images and masks, or pairs")
    return description


def read_values(description: FolderDescription) -> ClassValues | None:
    """Give the table of mask values; None where the classes are a plain list."""
    if not isinstance(description.classes, dict):
        return None
    return tuple(tuple(map(_read_value, values)) for values in description.classes.values())


def _read_value(value: int | str) -> FileValue:
    if isinstance(value, int):
        return value
    red, green, blue = bytes.fromhex(value[1:])
    return (red, green, blue)


def _check_values(file: Path, values: ClassValues | None) -> None:
    seen: set[FileValue] = set()
    for value in (value for of_class in values or () for value in of_class):
        if value in seen:
            raise UsageError(f"{file}: mask value {value} stands for two classes")
        seen.add(value)


def _read_described(_: Path, *, file: Path, description: FolderDescription) -> list[Case]:
    root = file.parent / description.root
    if description.pairs is not None:
        return read_pair_table(root / description.pairs, root=root)
    if description.images is None or description.masks is None:
        raise UsageError(f"{file}: give either images and masks, or pairs")
    patterns = PathPatterns(images=description.images, masks=description.masks)
    cases = read_patterns(root, patterns)
    if not cases:
        raise UsageError(
            f"{root}: no file matches {description.images!r} or {description.masks!r}; correct"
            f" {file.name}, or write it anew: segnetr data init {root} --overwrite"
        )
    return cases

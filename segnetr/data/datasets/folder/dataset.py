"""Datasets in the user's own folder, described by a file `dataset.yaml`.

`segnetr data init DIR` inspects the folder and writes the description. The user completes it.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from segnetr.config.load import parse_plain, read_yaml
from segnetr.config.schema.dataset_description import FolderDescription
from segnetr.data.case import Case, DatasetSpec
from segnetr.data.datasets.folder.pair_table import read_pair_table
from segnetr.data.datasets.folder.patterns import PathPatterns, read_patterns
from segnetr.data.readers.image_file import ClassValues, FileValue
from segnetr.errors import UsageError

DESCRIPTION = "dataset.yaml"

_OLD_KEYS = {"licence": "license"}


def describe_folder(path: Path) -> DatasetSpec:
    """Read the description of a folder.

    Args:
        path: A folder that contains `dataset.yaml`, or a description file of another name.

    Returns:
        The dataset. Its `read_cases` uses this description.

    Raises:
        UsageError: If there is no description, or it is invalid.
    """
    file = find_description(path)
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


def read_folder(path: Path) -> list[Case]:
    """Read the cases of a described folder. See `describe_folder`.

    Raises:
        UsageError: As `describe_folder`, or if no file matches the patterns.
        DataError: If a table of pairs cannot be read.
    """
    return describe_folder(path).read_cases(path)


def find_description(path: Path) -> Path:
    """Find the description file of a folder. The path of the file itself is accepted as well.

    Raises:
        UsageError: If there is no description file.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder")
    file = path / DESCRIPTION
    if not file.is_file():
        raise UsageError(
            f"{path}: {DESCRIPTION} is missing; run `segnetr data init {path}` to create it"
        )
    return file


def read_description(file: Path) -> FolderDescription:
    """Read and check a description file.

    Raises:
        UsageError: If it is not YAML, has unknown keys or invalid values, or does not locate the
            files.
    """
    try:
        content = _rename_old_keys(file, read_yaml(file))
        description: FolderDescription = parse_plain(FolderDescription, content)
    except UsageError as error:
        raise UsageError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from None
    by_patterns = description.images is not None and description.masks is not None
    if by_patterns == (description.pairs is not None):
        raise UsageError(f"{file}: set either images and masks, or pairs")
    return description


def _rename_old_keys(file: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Replace the keys of version 0.1 and name the new ones on stderr."""
    for old, new in _OLD_KEYS.items():
        if old in content and new not in content:
            sys.stderr.write(f"note: {file}: {old} is now {new}\n")
            content = {**content, new: content[old]}
            del content[old]
    return content


def read_values(description: FolderDescription) -> ClassValues | None:
    """Return the mask values of each class, or None if the classes are a plain list."""
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
            raise UsageError(f"{file}: mask value {value} is assigned to two classes")
        seen.add(value)


def _read_described(_: Path, *, file: Path, description: FolderDescription) -> list[Case]:
    root = file.parent / description.root
    if description.pairs is not None:
        return read_pair_table(root / description.pairs, root=root)
    if description.images is None or description.masks is None:
        raise UsageError(f"{file}: set either images and masks, or pairs")
    patterns = PathPatterns(images=description.images, masks=description.masks)
    cases = read_patterns(root, patterns)
    if not cases:
        raise UsageError(
            f"{root}: no file matches {description.images!r} or {description.masks!r}; correct"
            f" {file.name}, or create it again: segnetr data init {root} --overwrite"
        )
    return cases


SPEC = DatasetSpec(
    name="folder",
    title="Your own folder, described in dataset.yaml (segnetr data init)",
    read_cases=read_folder,
    classes=("background", "as described"),
    in_channels=3,
    spatial_dims=2,
    counts={},
    source="yours",
    license="as described",
    describe=describe_folder,
)

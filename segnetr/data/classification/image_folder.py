"""Folders of pictures, one folder a class, as ImageNet has them.

Where `train`, `val` (or `valid`, `validation`) or `test` stand below the root, they are the
official parts and hold the class folders; else the root itself does.
"""

from pathlib import Path

from segnetr.data.case import SplitName
from segnetr.data.classification.case import LabelledCase, LabelledSet
from segnetr.data.readers.file_list import list_images
from segnetr.errors import DataFaultError, UsageError

_PARTS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


def read_image_folder(root: Path, *, in_channels: int | None) -> LabelledSet:
    """List the pictures below class folders; none is opened.

    Args:
        root: The folder of the parts, or of the classes.
        in_channels: Channels the network is to see; None: 3.

    Returns:
        Cases named by their path below `root`; classes in the order of their names.

    Raises:
        UsageError: If there are no class folders.
        DataFaultError: If a class folder of the training part holds no picture.
    """
    if not root.is_dir():
        raise UsageError(f"--data-dir {root}: no such folder")
    parts = [(name, part) for name, part in _PARTS.items() if (root / name).is_dir()]
    places: list[tuple[Path, SplitName | None]] = [(root / name, part) for name, part in parts]
    found = [(place, part, _class_folders(place)) for place, part in places or [(root, None)]]
    for place, _, folders in found:
        if not folders:
            raise UsageError(
                f"{place}: no class folders in it; each class is a folder of pictures, as "
                f"{place.name}/cat/1.jpg"
            )
    classes = sorted({folder.name for _, _, folders in found for folder in folders})
    cases = [
        case
        for _, part, folders in found
        for folder in folders
        for case in _list_class(root, folder, part=part, label=classes.index(folder.name))
    ]
    return LabelledSet(
        name="imagefolder",
        title=f"Pictures in {root.name}",
        classes=tuple(classes),
        kind="single",
        in_channels=in_channels or 3,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        source="folders of pictures",
        licence="that of the pictures",
    )


def _class_folders(place: Path) -> list[Path]:
    folders = [entry for entry in place.iterdir() if entry.is_dir()]
    return sorted(folder for folder in folders if not folder.name.startswith("."))


def _list_class(
    root: Path, folder: Path, *, part: SplitName | None, label: int
) -> list[LabelledCase]:
    try:
        images = list_images([folder])
    except UsageError:
        if part in (None, "train"):
            raise DataFaultError(
                f"{folder}: the class {folder.name!r} holds no picture; add some or remove the "
                "folder"
            ) from None
        return []
    return [
        LabelledCase(
            case_id=path.relative_to(root).as_posix(), picture=path, labels=(label,), split=part
        )
        for path, _ in images
    ]

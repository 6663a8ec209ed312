"""Folders of images, one folder a class, as ImageNet has them.

Where `train`, `val` (or `valid`, `validation`) or `test` stand below the root, they are the
official parts and hold the class folders; else the root itself does.
"""

from pathlib import Path

from segnetr.data.case import SplitName
from segnetr.data.classification.case import ClassificationCase, ClassificationSet
from segnetr.data.readers.file_list import list_images
from segnetr.errors import DataError, UsageError

_PARTS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


def read_image_folder(root: Path, *, in_channels: int | None) -> ClassificationSet:
    """List the images below class folders; none is opened.

    Args:
        root: The folder of the parts, or of the classes.
        in_channels: Channels the network is to see; None: 3.

    Returns:
        Cases named by their path below `root`; classes in the order of their names.

    Raises:
        UsageError: If there are no class folders.
        DataError: If a class folder of the training part holds no image.
    """
    if not root.is_dir():
        raise UsageError(f"--data-dir {root}: no such folder")
    parts = [(name, part) for name, part in _PARTS.items() if (root / name).is_dir()]
    places: list[tuple[Path, SplitName | None]] = [(root / name, part) for name, part in parts]
    found = [(place, part, _class_folders(place)) for place, part in places or [(root, None)]]
    for place, _, folders in found:
        if not folders:
            raise UsageError(
                f"{place}: no class folders in it; each class is a folder of images, as "
                f"{place.name}/cat/1.jpg"
            )
    classes = sorted({folder.name for _, _, folders in found for folder in folders})
    cases = [
        case
        for _, part, folders in found
        for folder in folders
        for case in _list_class(root, folder, part=part, label=classes.index(folder.name))
    ]
    return ClassificationSet(
        name="imagefolder",
        title=f"Images in {root.name}",
        classes=tuple(classes),
        kind="single",
        in_channels=in_channels or 3,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        source="folders of images",
        license="that of the images",
    )


def _class_folders(place: Path) -> list[Path]:
    folders = [entry for entry in place.iterdir() if entry.is_dir()]
    return sorted(folder for folder in folders if not folder.name.startswith("."))


def _list_class(
    root: Path, folder: Path, *, part: SplitName | None, label: int
) -> list[ClassificationCase]:
    try:
        images = list_images([folder])
    except UsageError:
        if part in (None, "train"):
            raise DataError(
                f"{folder}: the class {folder.name!r} holds no image; add some or remove the folder"
            ) from None
        return []
    return [
        ClassificationCase(
            case_id=path.relative_to(root).as_posix(), image=path, labels=(label,), split=part
        )
        for path, _ in images
    ]

"""Folders of images with one folder per class, as in ImageNet.

If the root contains `train`, `val` (or `valid`, `validation`) or `test`, these are the official
splits and contain the class folders. Otherwise the root contains them.
"""

from pathlib import Path

from segnetr.data.case import SplitName
from segnetr.data.classification.case import ClassificationCase, ClassificationSet
from segnetr.data.readers.file_list import list_images
from segnetr.errors import DataError, UsageError

_SPLITS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}


def read_image_folder(root: Path, *, in_channels: int | None) -> ClassificationSet:
    """List the images below class folders without opening them.

    Args:
        root: The folder of the splits, or of the classes.
        in_channels: Input channels of the network. None: 3.

    Returns:
        Cases whose ids are paths below `root`, and classes sorted by name.

    Raises:
        UsageError: If there are no class folders.
        DataError: If a class folder of the training split contains no image.
    """
    if not root.is_dir():
        raise UsageError(f"--data-dir {root}: no such folder")
    parents: list[tuple[Path, SplitName | None]] = [
        (root / name, split) for name, split in _SPLITS.items() if (root / name).is_dir()
    ]
    found = [(parent, split, _class_folders(parent)) for parent, split in parents or [(root, None)]]
    for parent, _, folders in found:
        if not folders:
            raise UsageError(
                f"{parent}: contains no class folders; expected one folder of images per class, "
                f"for example {parent.name}/cat/1.jpg"
            )
    classes = sorted({folder.name for _, _, folders in found for folder in folders})
    cases = [
        case
        for _, split, folders in found
        for folder in folders
        for case in _list_class(root, folder, split=split, label=classes.index(folder.name))
    ]
    return ClassificationSet(
        name="imagefolder",
        title=f"Images in {root.name}",
        classes=tuple(classes),
        kind="single",
        in_channels=in_channels or 3,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        source="folders of images",
        license="the license of the images",
    )


def _class_folders(parent: Path) -> list[Path]:
    folders = [entry for entry in parent.iterdir() if entry.is_dir()]
    return sorted(folder for folder in folders if not folder.name.startswith("."))


def _list_class(
    root: Path, folder: Path, *, split: SplitName | None, label: int
) -> list[ClassificationCase]:
    try:
        images = list_images([folder])
    except UsageError:
        if split in (None, "train"):
            raise DataError(
                f"{folder}: the class {folder.name!r} contains no image; add some "
                "or remove the folder"
            ) from None
        return []
    return [
        ClassificationCase(
            case_id=path.relative_to(root).as_posix(), image=path, labels=(label,), split=split
        )
        for path, _ in images
    ]

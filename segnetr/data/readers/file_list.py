"""Which images there are: files, folders to the bottom, and the folders that are DICOM series."""

import os
from collections.abc import Sequence
from pathlib import Path

from segnetr.data.readers.dicom.series import (
    ARCHIVE_SUFFIX,
    DICOM_SUFFIXES,
    is_dicom_file,
    is_dicom_source,
    list_series,
)
from segnetr.data.readers.image_file import SUPPORTED_SUFFIXES, find_suffix
from segnetr.errors import ReadError, UsageError

_NO_IMAGE_ENDS = ("_superpixels.png",)
_Found = tuple[Path, Path]  # the path, and the same relative to the folder it was found below


def list_images(
    inputs: Sequence[Path], *, dicom: bool = False, series: str | None = None
) -> list[tuple[Path, Path]]:
    """Find the images among files and below folders.

    Folders are searched to the bottom, in the order of names. Hidden files and folders (`.x`,
    and with them the `._x` of macOS archives) and the `_superpixels.png` of ISIC are left out.

    Args:
        inputs: Files and folders.
        dicom: Find DICOM as well: a folder that directly holds DICOM files is one image, so is a
            zip file or a DICOM file that is named itself. Its relative path ends in `.dcm`.
        series: With `dicom`: leave out sources of DICOM without this SeriesInstanceUID.

    Returns:
        Each image once, with its path relative to the folder it was found below; a file that was
        named itself has its bare name.

    Raises:
        UsageError: If an input is missing, a file is of a kind that is not read, a folder holds
            no image, or no source has the series.
    """
    kinds = " ".join(SUPPORTED_SUFFIXES + ((*DICOM_SUFFIXES, ARCHIVE_SUFFIX) if dicom else ()))
    found: dict[Path, _Found] = {}
    for entry in inputs:
        if entry.is_dir():
            below = _walk_folder(entry, dicom=dicom)
            if not below:
                raise UsageError(f"{entry}: no images in this folder ({kinds} are read)")
        elif not entry.exists():
            raise UsageError(f"{entry}: no such file or folder")
        elif dicom and is_dicom_source(entry):
            below = [(entry, Path(f"{entry.stem}.dcm"))]
        elif find_suffix(entry) is None:
            raise UsageError(f"{entry}: this kind of file is not read ({kinds} are)")
        else:
            below = [(entry, Path(entry.name))]
        for path, relative in below:
            found.setdefault(path.resolve(), (path, relative))
    images = list(found.values())
    return images if series is None else _keep_series(images, series)


def _walk_folder(folder: Path, *, dicom: bool) -> list[_Found]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(parent)
        paths = [here / name for name in names if not name.startswith(".")]
        for path in paths:
            left_out = path.name.lower().endswith(_NO_IMAGE_ENDS)
            if not left_out and find_suffix(path) is not None and path.is_file():
                found.append((path, path.relative_to(folder)))
        if dicom and any(_is_slice(path) for path in paths):
            relative = here.relative_to(folder)
            name = relative.name or folder.absolute().name
            found.append((here, relative.parent / f"{name}.dcm"))
    return sorted(found)


def _is_slice(path: Path) -> bool:
    is_other = find_suffix(path) is not None or path.name.upper() == "DICOMDIR"
    return not is_other and path.is_file() and is_dicom_file(path)


def _keep_series(images: Sequence[_Found], series: str) -> list[_Found]:
    kept, others = [], []
    for path, relative in images:
        if not is_dicom_source(path):
            kept.append((path, relative))
            continue
        try:
            uids = list_series(path)
        except ReadError:
            uids = [series]  # kept, so that reading it says what is wrong
        if series in uids:
            kept.append((path, relative))
        others += uids
    if not any(is_dicom_source(path) for path, _ in kept):
        shown = ", ".join(others[:8]) + (" ..." if len(others) > 8 else "") or "none"
        raise UsageError(f"--series {series}: no input has it; there are {shown}")
    return kept

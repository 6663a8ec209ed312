"""Find images among files and in folders, including folders that are DICOM series."""

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

_SKIPPED_SUFFIXES = ("_superpixels.png",)
_Found = tuple[Path, Path]  # the path, and its path relative to the searched folder


def list_images(
    inputs: Sequence[Path], *, dicom: bool = False, series: str | None = None
) -> list[tuple[Path, Path]]:
    """Find the images among files and in folders.

    Folders are searched recursively, sorted by name. Hidden files and folders (`.x`, including the
    `._x` of macOS archives) and the `_superpixels.png` of ISIC are skipped.

    Args:
        inputs: Files and folders.
        dicom: Also find DICOM: a folder with DICOM files is one image, and so is a zip file or a
            DICOM file among the inputs. Its relative path ends in `.dcm`.
        series: With `dicom`, skip DICOM sources without this SeriesInstanceUID.

    Returns:
        Each image once, with its path relative to the searched folder. For an input file this is
        its name.

    Raises:
        UsageError: If an input does not exist, a file is not supported, a folder holds no image, or
            no source has the series.
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
    return images if series is None else _select_series(images, series)


def _walk_folder(folder: Path, *, dicom: bool) -> list[_Found]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(parent)
        paths = [here / name for name in names if not name.startswith(".")]
        for path in paths:
            is_skipped = path.name.lower().endswith(_SKIPPED_SUFFIXES)
            if not is_skipped and find_suffix(path) is not None and path.is_file():
                found.append((path, path.relative_to(folder)))
        if dicom and any(_is_slice(path) for path in paths):
            relative = here.relative_to(folder)
            name = relative.name or folder.absolute().name
            found.append((here, relative.parent / f"{name}.dcm"))
    return sorted(found)


def _is_slice(path: Path) -> bool:
    is_other = find_suffix(path) is not None or path.name.upper() == "DICOMDIR"
    return not is_other and path.is_file() and is_dicom_file(path)


def _select_series(images: Sequence[_Found], series: str) -> list[_Found]:
    selected, others = [], []
    for path, relative in images:
        if not is_dicom_source(path):
            selected.append((path, relative))
            continue
        try:
            uids = list_series(path)
        except ReadError:
            uids = [series]  # included, so that reading it reports the error
        if series in uids:
            selected.append((path, relative))
        others += uids
    if not any(is_dicom_source(path) for path, _ in selected):
        shown = ", ".join(others[:8]) + (" ..." if len(others) > 8 else "") or "none"
        raise UsageError(f"--series {series}: no input has it; there are {shown}")
    return selected

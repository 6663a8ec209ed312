"""Read DICOM series as volumes. A child process with limits parses the files.

pydicom is needed for DICOM only: `pip install 'segnetr[dicom]'`.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from segnetr.data.readers.dicom.sandbox import ChildLimits, ask_child
from segnetr.data.readers.image_file import DicomSeries, ImageFile, check_finite, find_suffix
from segnetr.errors import ReadError

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
ARCHIVE_SUFFIX = ".zip"

_CHILD = "segnetr.data.readers.dicom.worker"
_MEMORY_BYTES = 2 * 2**30
_SECONDS, _SECONDS_PER_FILE = 120, 0.25


def is_dicom_source(path: Path) -> bool:
    """Return whether a path is read as DICOM: a folder, a zip file, or a DICOM suffix."""
    if path.is_dir():
        return find_suffix(path) is None  # a folder named x.png is an error
    return path.name.lower().endswith((*DICOM_SUFFIXES, ARCHIVE_SUFFIX))


def is_dicom_file(path: Path) -> bool:
    """Return whether a file is DICOM: by its suffix, or without a suffix by its content."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    # DICOM files often have no suffix, or the last component of a UID looks like one.
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def list_series(path: Path) -> list[str]:
    """Return the UIDs of the series in a folder or zip file.

    Raises:
        ReadError: As `read_dicom`.
    """
    request = {"action": "list", "path": str(path.absolute())}
    reply: list[str] = _ask(path, request, take=lambda facts, _: list(facts["series"]))
    return reply


def read_dicom(path: Path, *, series: str | None = None, max_pixels: int) -> ImageFile:
    """Read a DICOM series.

    Args:
        path: A folder (the files directly in it), a zip file (all files in it) or one file.
        series: SeriesInstanceUID, or None if there is only one series.
        max_pixels: Reject more voxels than this before memory is allocated.

    Returns:
        A rescaled array (X, Y, Z): columns, rows, slices sorted by position.

    Raises:
        ReadError: If pydicom is not installed; a file is damaged or truncated; there are several
            series and `series` is None; slices are missing, duplicated, shifted or rotated; or the
            parser exceeds its memory or time limit.
    """
    request = {
        "action": "read",
        "path": str(path.absolute()),
        "series": series,
        "max_pixels": max_pixels,
    }
    try:
        image: ImageFile = _ask(path, request, take=lambda facts, rest: _build(path, facts, rest))
    except MemoryError as error:
        raise ReadError(path, "there is not enough memory for it") from error
    check_finite(path, image.array)
    return image


def count_seconds(path: Path) -> int:
    """Return the time limit in seconds for a source."""
    files = sum(1 for _ in path.iterdir()) if path.is_dir() else path.stat().st_size // 2**17
    return _SECONDS + int(files * _SECONDS_PER_FILE)


def require_package(path: Path, package: str) -> None:
    """Check that a package of the extra `dicom` is installed.

    Raises:
        ReadError: If it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise ReadError(path, f"DICOM needs {package}: pip install 'segnetr[dicom]'")


def _ask(path: Path, request: Mapping[str, Any], *, take: Any) -> Any:
    require_package(path, "pydicom")
    if not path.exists():
        raise ReadError(path, "No such file or directory")
    limits = ChildLimits(memory_bytes=_MEMORY_BYTES, seconds=count_seconds(path))
    return ask_child(_CHILD, request, path=path, limits=limits, take=take)


def _build(path: Path, facts: Mapping[str, Any], rest: IO[bytes]) -> ImageFile:
    columns, rows, depth = facts["extent"]
    stack = np.empty((depth, rows, columns), dtype=facts["dtype"])
    waiting = memoryview(stack.data).cast("B")
    while waiting:
        taken = rest.readinto(waiting)  # type: ignore[attr-defined]  # a pipe has it
        if not taken:
            raise EOFError
        waiting = waiting[taken:]
    affine = np.array(facts["affine"])
    return ImageFile(
        path=path,
        array=stack.transpose(2, 1, 0),
        kind="volume",
        affine=affine,
        spacing=tuple(float(side) for side in np.sqrt((affine[:3, :3] ** 2).sum(axis=0))),
        source_header=DicomSeries(source=path, uid=facts["series"], names=tuple(facts["names"])),
        warnings=tuple(facts["warnings"]),
    )

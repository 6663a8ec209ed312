"""DICOM series as volumes; the parsing is done by a child process with limits.

pydicom is wanted only where there is DICOM: `pip install 'segnetr[dicom]'`.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from segnetr.data.readers.dicom.sandbox import Limits, ask_child
from segnetr.data.readers.image_file import DicomSeries, ImageFile, check_finite, find_suffix
from segnetr.errors import ReadError

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
ARCHIVE_SUFFIX = ".zip"

_CHILD = "segnetr.data.readers.dicom.worker"
_MEMORY_BYTES = 2 * 2**30
_SECONDS, _SECONDS_PER_FILE = 120, 0.25


def is_dicom_source(path: Path) -> bool:
    """Tell whether a path is read as DICOM: a folder, a zip file, or a file of such a name."""
    if path.is_dir():
        return find_suffix(path) is None  # a folder called x.png is a mistake
    return path.name.lower().endswith((*DICOM_SUFFIXES, ARCHIVE_SUFFIX))


def is_dicom_file(path: Path) -> bool:
    """Tell whether a file of a folder is DICOM: by its name, or without a suffix by its bytes."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    # DICOM files often have no suffix, or a piece of a UID that looks like one.
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def list_series(path: Path) -> list[str]:
    """Give the UIDs of the series in a folder or zip file.

    Raises:
        ReadError: As `read_dicom`.
    """
    request = {"action": "list", "path": str(path.absolute())}
    reply: list[str] = _ask(path, request, take=lambda facts, _: list(facts["series"]))
    return reply


def read_dicom(path: Path, *, series: str | None = None, max_pixels: int) -> ImageFile:
    """Read a DICOM series.

    Args:
        path: A folder (the files directly in it), a zip file (all of it) or one file.
        series: SeriesInstanceUID; None: the only one there is.
        max_pixels: Refuse more voxels than this before memory is taken for them.

    Returns:
        An array (X, Y, Z): columns, rows, slices in the order of their places, rescaled.

    Raises:
        ReadError: If pydicom is not installed; a file is damaged or cut off; there are several
            series and none was named; slices are missing, doubled, shifted or turned; or the
            parser needs more memory or time than it may.
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
    """Give the time a child may take for a source."""
    files = sum(1 for _ in path.iterdir()) if path.is_dir() else path.stat().st_size // 2**17
    return _SECONDS + int(files * _SECONDS_PER_FILE)


def require_package(path: Path, package: str) -> None:
    """Refuse a file for which a package of the extra `dicom` is missing.

    Raises:
        ReadError: If it is.
    """
    if importlib.util.find_spec(package) is None:
        raise ReadError(path, f"DICOM needs {package}: pip install 'segnetr[dicom]'")


def _ask(path: Path, request: Mapping[str, Any], *, take: Any) -> Any:
    require_package(path, "pydicom")
    if not path.exists():
        raise ReadError(path, "No such file or directory")
    limits = Limits(memory_bytes=_MEMORY_BYTES, seconds=count_seconds(path))
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

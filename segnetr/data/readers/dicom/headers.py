"""Read the headers of DICOM slices. Runs in a child process (`worker.py`), because it parses files.

Files are searched directly in a folder, or anywhere in a zip file, which is not extracted to disk.
The content decides (`DICM` at byte 128). A file with a DICOM suffix and other content is rejected.
DICOMDIR is skipped, and its references are not followed.
"""

import errno
import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian

from segnetr.data.readers.image_file import describe_os_error
from segnetr.errors import ReadError

_SUFFIXES = (".dcm", ".dicom", ".ima")
MOST_FILES = 20_000
PARSE_ERRORS = (
    InvalidDicomError, BytesLengthException, OSError, EOFError, ValueError, TypeError, KeyError,
    IndexError, AttributeError, OverflowError, NotImplementedError, RuntimeError, AssertionError,
    struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""Errors of pydicom and zipfile on damaged bytes. RecursionError is a RuntimeError."""

_MOST_ENTRY_BYTES = 2**30
_TAGS = (
    "SeriesInstanceUID", "SeriesDescription", "Modality", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "PhotometricInterpretation", "PixelSpacing", "ImageOrientationPatient",
    "ImagePositionPatient", "SliceThickness", "SpacingBetweenSlices", "RescaleSlope",
    "RescaleIntercept",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceHeader:
    """The header of one file, without pixels.

    Attributes:
        name: The file's name in its source.
        uid: SeriesInstanceUID.
        text: Modality and description of the series, for messages.
        rows: Number of rows, 0 for a file without pixels.
        columns: Number of columns.
        frames: Number of frames.
        samples: Values per pixel.
        bits: Bits used per value.
        is_signed: Whether values may be negative.
        spacing: (between rows, between columns) in mm, or None.
        orientation: Directions of a row and of a column (6,), left-posterior-superior, or None.
        position: Center of the first pixel (3,) in mm, left-posterior-superior, or None.
        thickness: Distance to the next slice in mm, or None.
        slope: Slope of the rescaling.
        intercept: Intercept of the rescaling.
        inverted: Whether low values are bright.
    """

    name: str
    uid: str
    text: str
    rows: int
    columns: int
    frames: int
    samples: int
    bits: int
    is_signed: bool
    spacing: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    thickness: float | None
    slope: float
    intercept: float
    inverted: bool


class DicomSource:
    """A folder, a zip file or one file, with uniform access to its files.

    Args:
        path: The source.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        if path.is_file() and path.suffix.lower() == ".zip":
            try:
                self._archive = zipfile.ZipFile(path)
            except PARSE_ERRORS as error:
                raise ReadError(path, f"damaged zip file: {_one_line(error)}") from error

    def full_path(self, name: str) -> Path:
        """Return the path of a file for messages."""
        return self.path if self.path.is_file() and self._archive is None else self.path / name

    def names(self) -> list[str]:
        """Return the sorted names of possible DICOM files.

        Raises:
            ReadError: If there are too many files.
        """
        if self._archive is not None:
            found = [info.filename for info in self._archive.infolist() if not info.is_dir()]
        elif self.path.is_dir():
            found = [entry.name for entry in self.path.iterdir() if entry.is_file()]
        else:
            found = [self.path.name]
        names = sorted(name for name in found if not _is_skipped(name))
        if len(names) > MOST_FILES:
            raise ReadError(self.path, f"it holds {len(names)} files; {MOST_FILES} are read")
        return names

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file of the source. Files in an archive are read into memory and verified."""
        if self._archive is None:
            path = self.path / name if self.path.is_dir() else self.path
            with path.open("rb") as stream:
                yield stream
            return
        try:
            with self._archive.open(name) as packed:
                content = packed.read(_MOST_ENTRY_BYTES + 1)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # The start of the zip file is missing: zipfile seeks to a negative position.
            raise ReadError(self.path, "damaged zip file: an entry lies outside of it") from error
        if len(content) > _MOST_ENTRY_BYTES:
            raise ReadError(
                self.full_path(name), f"it unpacks to more than {_MOST_ENTRY_BYTES} bytes"
            )
        yield io.BytesIO(content)


def read_headers(source: DicomSource) -> list[SliceHeader]:
    """Read the headers of all DICOM files of a source.

    Raises:
        ReadError: If a file is damaged or not DICOM despite its name, or there is no DICOM file.
    """
    headers = []
    for name in source.names():
        try:
            # pydicom warns about values of truncated files; the error below names the file.
            with warnings.catch_warnings(action="ignore"), source.open(name) as stream:
                header = _read_header(name, stream)
                if header is not None and header.rows == 0:
                    _check_end(source.full_path(name), stream)
        except PARSE_ERRORS as error:
            raise describe_dicom_damage(source.full_path(name), error) from error
        if header is not None:
            if not header.uid:
                raise ReadError(source.full_path(name), "cut off: its SeriesInstanceUID is missing")
            headers.append(header)
        elif _is_named_like_a_slice(name):
            raise ReadError(source.full_path(name), "not a DICOM file: DICM is not at byte 128")
    if not headers:
        raise ReadError(source.path, "it contains no DICOM file")
    return headers


def describe_dicom_damage(path: Path, error: BaseException) -> ReadError:
    """Convert an error of a parser into one line that names the file."""
    if isinstance(error, OSError) and error.errno is not None:
        return ReadError(path, describe_os_error(error))
    return ReadError(path, f"damaged DICOM file: {_one_line(error)}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _is_skipped(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.name.startswith(".") or path.name.upper() == "DICOMDIR" or "__MACOSX" in path.parts


def _is_named_like_a_slice(name: str) -> bool:
    """Return whether a name looks like a slice: `x.dcm`, `IM0007`, `1.2.840.7`, not `README`."""
    path = PurePosixPath(name)
    is_bare = not path.suffix or path.suffix[1:].isdigit()
    return name.lower().endswith(_SUFFIXES) or (is_bare and any(map(str.isdigit, path.name)))


def _check_end(path: Path, stream: IO[bytes]) -> None:
    """Reject a file without pixels that ends inside an element: it may be a truncated slice.

    pydicom silently reads such a file, and the slice would be missing in its series.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    data = pydicom.dcmread(stream)
    if data.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian or not len(data):
        return  # decompressing it to the end is already a check
    last: object = data.get_item(max(data.keys()))
    if not isinstance(last, RawDataElement) or last.value is None:
        return
    if len(last.value) != last.length or last.value_tell + last.length != size:
        raise ReadError(path, "cut off: it ends inside an element, before any pixels")


def _read_header(name: str, stream: IO[bytes]) -> SliceHeader | None:
    if stream.read(132)[128:] != b"DICM":
        return None
    stream.seek(0)
    data = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(_TAGS))
    text = " ".join(str(data.get(tag, "")) for tag in ("Modality", "SeriesDescription")).strip()
    return SliceHeader(
        name=name,
        uid=str(data.get("SeriesInstanceUID", "")),
        text="".join(letter if letter.isprintable() else "?" for letter in text)[:60],
        rows=int(data.get("Rows", 0) or 0),
        columns=int(data.get("Columns", 0) or 0),
        frames=int(data.get("NumberOfFrames", 1) or 1),
        samples=int(data.get("SamplesPerPixel", 1) or 1),
        bits=int(data.get("BitsStored", data.get("BitsAllocated", 16)) or 16),
        is_signed=bool(data.get("PixelRepresentation", 0)),
        spacing=_numbers(data.get("PixelSpacing"), 2),
        orientation=_numbers(data.get("ImageOrientationPatient"), 6),
        position=_numbers(data.get("ImagePositionPatient"), 3),
        thickness=_thickness(data),
        slope=_number(data.get("RescaleSlope"), 1.0),
        intercept=_number(data.get("RescaleIntercept"), 0.0),
        inverted=str(data.get("PhotometricInterpretation", "")) == "MONOCHROME1",
    )


def _numbers(values: Sequence[Any] | None, length: int) -> tuple[float, ...] | None:
    if values is None or len(values) != length:
        return None
    return tuple(float(value) for value in values)


def _number(value: Any, missing: float) -> float:
    return missing if value is None else float(value)


def _thickness(data: Any) -> float | None:
    value = data.get("SpacingBetweenSlices") or data.get("SliceThickness")
    return None if value is None else abs(float(value))

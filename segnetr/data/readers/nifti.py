"""Read NIfTI volumes with strict checks, using nibabel's headers.

nibabel accepts NaN affines and zero spacings. So the header is checked before memory is
allocated, the data must have exactly the claimed size, gzip streams are read to their checksum, and
implausible geometry is rejected. Header and affine are preserved as stored, so that a mask has the
same grid bit for bit.
"""

import copy
import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from segnetr.data.readers.gzip_stream import GZIP_SIGNATURE, LARGEST_RATIO, fill, read_chunks
from segnetr.data.readers.image_file import (
    ImageFile,
    check_affine,
    check_extent,
    check_finite,
    check_spacing,
    describe_os_error,
)
from segnetr.errors import ReadError

_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 1e-3}
_HEADER_BYTES = {Nifti1Header: 348, Nifti2Header: 540}
_MAX_EXTENSION_BYTES = 2**26


def read_volume(path: Path, *, max_pixels: int, channels: int = 1) -> ImageFile:
    """Read a NIfTI volume of three axes, or of four where the last one holds channels.

    Args:
        path: A `.nii` or `.nii.gz` file.
        max_pixels: Reject more voxels than this before memory is allocated.
        channels: Values per voxel, C. If above 1, the file must have a fourth axis of this length.

    Returns:
        An array (X, Y, Z), or (X, Y, Z, C) with several channels, in the axis order of the file,
        with affine, spacing in mm and the header as stored. If the file has a slope and an
        intercept, the values are scaled and float32.

    Raises:
        ReadError: If the file is missing, empty, not NIfTI, too large, truncated, longer than its
            header claims, has NaN or infinite values, or an implausible geometry.
    """
    try:
        with path.open("rb") as stream:
            return _read_stream(path, stream, max_pixels=max_pixels, channels=channels)
    except OSError as error:
        raise ReadError(path, describe_os_error(error)) from error
    except MemoryError as error:
        raise ReadError(path, "there is not enough memory for it") from error


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VolumeHeader:
    """The checked header of a volume.

    Attributes:
        header: The NIfTI header as stored.
        extent: (X, Y, Z), or (X, Y, Z, C).
        offset: Bytes before the first voxel.
        affine: As in `ImageFile`, and so `spacing` and `warnings`.
        spacing: In mm.
        warnings: As in `ImageFile`.
    """

    header: Nifti1Header
    extent: tuple[int, ...]
    offset: int
    affine: NDArray[np.float64]
    spacing: tuple[float, ...]
    warnings: tuple[str, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a stored voxel, including its byte order."""
        dtype: np.dtype[Any] = self.header.get_data_dtype()
        return dtype

    @property
    def needed(self) -> int:
        """Length of the decompressed file in bytes."""
        return self.offset + math.prod(self.extent) * self.dtype.itemsize


def read_header(
    path: Path, stream: BinaryIO, content: bytearray, *, max_pixels: int, channels: int
) -> tuple[VolumeHeader, Iterator[bytes]]:
    """Read and check the header of an open file.

    Args:
        path: The file, for messages.
        stream: The file, at its start.
        content: Receives the bytes that were read, which may include voxels.
        max_pixels: As in `read_volume`.
        channels: As in `read_volume`.

    Returns:
        The header, and an iterator over the decompressed rest of the file.

    Raises:
        ReadError: As `read_volume`.
    """
    stored_bytes = stream.seek(0, io.SEEK_END)
    if stored_bytes == 0:
        raise ReadError(path, "the file is empty")
    stream.seek(0)
    chunks, most_bytes = open_chunks(path, stream, stored_bytes)
    header = _read_header(path, chunks, content)
    extent, warnings = _find_extent(path, header, channels)
    check_extent(path, extent, max_pixels=max_pixels)
    affine, spacing, more = _find_geometry(path, header)
    volume_header = VolumeHeader(
        header=header,
        extent=extent,
        offset=_data_offset(path, header),
        affine=affine,
        spacing=spacing,
        warnings=warnings + more,
    )
    if volume_header.needed > most_bytes:
        raise ReadError(
            path, f"cut off: {volume_header.needed} bytes belong to it, {most_bytes} can be there"
        )
    return volume_header, chunks


def check_length(path: Path, present: int, needed: int) -> None:
    """Check that a file has the length that its header claims.

    Raises:
        ReadError: If it is shorter or longer.
    """
    if present < needed:
        raise ReadError(path, f"cut off: {present} of {needed} bytes are there")
    if present > needed:
        raise ReadError(path, f"longer than its header says: {needed} bytes belong to it")


def _read_stream(path: Path, stream: BinaryIO, *, max_pixels: int, channels: int) -> ImageFile:
    content = bytearray()
    volume_header, chunks = read_header(
        path, stream, content, max_pixels=max_pixels, channels=channels
    )
    return load_voxels(path, volume_header, chunks, content)


def load_voxels(
    path: Path, volume_header: VolumeHeader, chunks: Iterator[bytes], content: bytearray
) -> ImageFile:
    """Read all voxels of a volume whose header is known.

    Args:
        path: The file, for messages.
        volume_header: Its header.
        chunks: The uncompressed content that follows `content`.
        content: The first bytes of the uncompressed content.

    Raises:
        ReadError: As `read_volume`.
    """
    fill(chunks, content, volume_header.needed + 1)
    check_length(path, len(content), volume_header.needed)
    stored = np.frombuffer(content, offset=volume_header.offset, dtype=volume_header.dtype)
    volume = scale_stored(
        path, volume_header.header, stored.reshape(volume_header.extent, order="F")
    )
    check_finite(path, volume)
    return ImageFile(
        path=path,
        array=volume,
        kind="volume",
        affine=volume_header.affine,
        spacing=volume_header.spacing,
        header=volume_header.header,
        warnings=volume_header.warnings,
    )


def open_chunks(path: Path, stream: BinaryIO, stored_bytes: int) -> tuple[Iterator[bytes], int]:
    """Return the decompressed content in chunks, and its maximum possible length.

    Raises:
        ReadError: If the compression does not match the suffix.
    """
    is_packed = stream.read(2) == GZIP_SIGNATURE
    stream.seek(0)
    if is_packed and not path.name.lower().endswith(".gz"):
        raise ReadError(path, "it holds gzip data; rename it to .nii.gz")
    if not is_packed and path.name.lower().endswith(".gz"):
        raise ReadError(path, "it holds no gzip data; a plain NIfTI file is named .nii")
    if is_packed:
        return read_chunks(path, stream, "gzip"), stored_bytes * LARGEST_RATIO
    return read_chunks(path, stream, "raw"), stored_bytes


def _read_header(path: Path, chunks: Iterator[bytes], content: bytearray) -> Nifti1Header:
    """Read as many chunks as the header with its extensions needs."""
    fill(chunks, content, 4)
    kind = _find_header_kind(path, content)
    size = _HEADER_BYTES[kind]
    fill(chunks, content, size)
    if len(content) < size:
        raise ReadError(path, f"cut off inside its header: {len(content)} bytes are there")
    offset = _data_offset(path, _parse_header(path, kind, bytes(content[:size]) + b"\0" * 4))
    if not size + 4 <= offset <= _MAX_EXTENSION_BYTES:
        raise ReadError(path, f"its header says that voxels begin at byte {offset}; it is damaged")
    fill(chunks, content, offset)
    if len(content) < offset:
        raise ReadError(path, f"cut off before its voxels: {len(content)} bytes are there")
    return _parse_header(path, kind, bytes(content[:offset]))


def _find_header_kind(path: Path, content: bytes | bytearray) -> type[Nifti1Header]:
    sizes = {struct.unpack(order + "i", content[:4])[0] for order in "<>"} if content[3:] else set()
    for kind, size in _HEADER_BYTES.items():
        if size in sizes:
            return kind
    raise ReadError(path, "it is no NIfTI file: the length of its header is neither 348 nor 540")


def _parse_header(path: Path, kind: type[Nifti1Header], block: bytes) -> Nifti1Header:
    try:
        # check=False: nibabel would fix fields silently, but the header must stay as stored.
        header: Nifti1Header = kind.from_fileobj(io.BytesIO(block), check=False)
        magic, dtype = header["magic"].item(), header.get_data_dtype()
    except (
        HeaderDataError,
        struct.error,
        ValueError,
        KeyError,
        EOFError,
        OSError,
        Warning,
    ) as error:
        raise ReadError(path, f"damaged NIfTI header: {error}") from error
    if magic[:2] != b"n+":
        raise ReadError(path, "it is no single-file NIfTI (.hdr/.img pairs are not read)")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ReadError(path, f"its voxels are {dtype}; integers and real numbers are read")
    return header


def _data_offset(path: Path, header: Nifti1Header) -> int:
    try:
        return int(header["vox_offset"])
    except (ValueError, OverflowError) as error:
        raise ReadError(path, "its header has no valid byte offset of the voxels") from error


def _find_extent(
    path: Path, header: Nifti1Header, channels: int
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    axes = int(header["dim"][0])
    sides = tuple(int(side) for side in header["dim"][1 : 1 + max(0, min(7, axes))])
    if not 1 <= axes <= 7 or min(sides) < 1:
        raise ReadError(path, f"its header claims {axes} axes of {sides} voxels; it is damaged")
    if channels > 1:
        if sides[3:] == (channels,):
            return sides, ()
        raise ReadError(
            path,
            f"it has {axes} axes {sides}; three axes and a fourth of {channels} channels are read",
        )
    if axes == 3:
        return sides, ()
    if axes > 3 and set(sides[3:]) == {1}:
        return sides[:3], (f"{axes} axes are stored; those of length 1 after Z are ignored",)
    raise ReadError(path, f"it has {axes} axes {sides}; volumes of three axes are read")


def _find_geometry(
    path: Path, header: Nifti1Header
) -> tuple[NDArray[np.float64], tuple[float, ...], tuple[str, ...]]:
    pixdim = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    unit = _MM_PER_UNIT.get(int(header["xyzt_units"]) & 0b111, 1.0)
    warnings = () if unit == 1.0 else (f"lengths are stored in units of {unit:g} mm",)
    check_spacing(path, np.abs(pixdim) * unit)
    fixed = copy.deepcopy(header)
    if int(header["sform_code"]) == 0 and float(header["pixdim"][0]) not in (-1.0, 1.0):
        # By the standard, all other values count as +1.
        fixed["pixdim"][0] = 1.0
    try:
        affine = np.asarray(fixed.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError, np.linalg.LinAlgError) as error:
        raise ReadError(path, f"its orientation cannot be true: {error}") from error
    return affine, check_affine(path, affine, unit_mm=unit), warnings


def scale_stored(path: Path, header: Nifti1Header, stored: NDArray[Any]) -> NDArray[Any]:
    """Convert stored voxels to values: native byte order, slope and intercept.

    Raises:
        ReadError: If the scaling is invalid.
    """
    values = stored.astype(stored.dtype.newbyteorder("="))
    if np.isinf(header["scl_slope"]) or np.isinf(header["scl_inter"]):
        raise ReadError(path, "its scaling is infinite")  # nibabel would ignore it
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise ReadError(path, f"its scaling cannot be true: {error}") from error
    if slope is None or (slope, intercept or 0.0) == (1.0, 0.0):
        return values
    return values.astype(np.float32) * np.float32(slope) + np.float32(intercept or 0.0)

"""Read NIfTI volumes plane by plane, without holding a whole volume in memory.

Opening a volume reads the file to its end, including the gzip checksum, and checks every value as
`read_volume` does. So truncated and damaged files are rejected before any result is written. Planes
are then read from the file when they are needed. A compressed file is decompressed again each time,
and its planes are available in stored order only.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray

from segnetr.data.readers.image_file import ImageFile, describe_os_error
from segnetr.data.readers.nifti import (
    VolumeHeader,
    check_length,
    load_voxels,
    open_chunks,
    read_header,
    scale_stored,
)
from segnetr.errors import ReadError

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeFile:
    """A checked volume on disk.

    Attributes:
        path: The file.
        volume_header: Its header.
        kind: As in `ImageFile`.
    """

    path: Path
    volume_header: VolumeHeader
    kind: Literal["volume"] = "volume"

    @property
    def grid(self) -> tuple[int, ...]:
        """(X, Y, Z)."""
        return self.volume_header.extent[:3]

    @property
    def channels(self) -> int:
        """Values per voxel, C."""
        return self.volume_header.extent[3] if len(self.volume_header.extent) == 4 else 1

    @property
    def affine(self) -> NDArray[np.float64]:
        """As in `ImageFile`."""
        return self.volume_header.affine

    @property
    def spacing(self) -> tuple[float, ...]:
        """As in `ImageFile`."""
        return self.volume_header.spacing

    @property
    def header(self) -> Nifti1Header:
        """As in `ImageFile`."""
        return self.volume_header.header

    @property
    def warnings(self) -> tuple[str, ...]:
        """As in `ImageFile`."""
        return self.volume_header.warnings

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Type of the scaled values."""
        empty = np.zeros(0, dtype=self.volume_header.dtype)
        return scale_stored(self.path, self.volume_header.header, empty).dtype

    def read_planes(self, first: int = 0) -> Iterator[NDArray[Any]]:
        """Yield the planes (X, Y, C) along Z in order, from `first` to the last.

        Raises:
            ReadError: If the file cannot be read, or changed after it was opened.
        """
        plane = math.prod(self.grid[:2]) * self.volume_header.dtype.itemsize
        streams = [
            self._read_blocks(
                self.volume_header.offset + (channel * self.grid[2] + first) * plane,
                size=plane,
                count=self.grid[2] - first,
            )
            for channel in range(self.channels)
        ]
        for blocks in zip(*streams, strict=True):
            stored = [
                np.frombuffer(block, dtype=self.volume_header.dtype).reshape(
                    self.grid[:2], order="F"
                )
                for block in blocks
            ]
            yield scale_stored(self.path, self.header, np.stack(stored, axis=-1))

    def load(self) -> ImageFile:
        """Read the whole volume.

        Raises:
            ReadError: As `read_volume`.
        """
        try:
            with self.path.open("rb") as stream:
                chunks, _ = open_chunks(self.path, stream, 0)
                return load_voxels(self.path, self.volume_header, chunks, bytearray())
        except OSError as error:
            raise ReadError(self.path, describe_os_error(error)) from error
        except MemoryError as error:
            raise ReadError(self.path, "there is not enough memory for it") from error

    def _read_blocks(self, start: int, *, size: int, count: int) -> Iterator[bytes]:
        """Yield consecutive blocks of equal size."""
        try:
            with self.path.open("rb") as stream:
                chunks = self._seek(stream, start)
                held = bytearray()
                for _ in range(count):
                    while len(held) < size:
                        chunk = next(chunks, None)
                        if chunk is None:
                            raise ReadError(self.path, "it changed while it was read")
                        held += chunk
                    yield bytes(held[:size])
                    del held[:size]
        except OSError as error:
            raise ReadError(self.path, describe_os_error(error)) from error

    def _seek(self, stream: BinaryIO, start: int) -> Iterator[bytes]:
        """Return the content from a byte position."""
        if not self.path.name.lower().endswith(".gz"):
            stream.seek(start)
            return iter(lambda: stream.read(_CHUNK_BYTES), b"")
        chunks, _ = open_chunks(self.path, stream, 0)
        return _skip(chunks, start)


def open_volume(path: Path, *, max_pixels: int, channels: int = 1) -> VolumeFile:
    """Check a volume to its last byte, without keeping its voxels.

    Args:
        path: A `.nii` or `.nii.gz` file.
        max_pixels: As in `read_volume`.
        channels: As in `read_volume`.

    Raises:
        ReadError: As `read_volume`.
    """
    try:
        with path.open("rb") as stream:
            content = bytearray()
            volume_header, chunks = read_header(
                path, stream, content, max_pixels=max_pixels, channels=channels
            )
            volume = VolumeFile(path=path, volume_header=volume_header)
            _check_content(volume, content, chunks)
    except OSError as error:
        raise ReadError(path, describe_os_error(error)) from error
    except MemoryError as error:
        raise ReadError(path, "there is not enough memory for it") from error
    return volume


def _check_content(volume: VolumeFile, content: bytearray, chunks: Iterator[bytes]) -> None:
    """Read to the end, and count bytes and non-finite values."""
    volume_header = volume.volume_header
    present, bad = len(content), 0
    del content[: volume_header.offset]
    while True:
        whole = len(content) - len(content) % volume_header.dtype.itemsize
        stored = np.frombuffer(bytes(content[:whole]), dtype=volume_header.dtype)
        values = scale_stored(volume.path, volume_header.header, stored)
        if values.dtype.kind == "f":
            bad += values.size - int(np.count_nonzero(np.isfinite(values)))
        del content[:whole]
        chunk = next(chunks, None)
        if chunk is None or present > volume_header.needed:
            break
        content += chunk
        present += len(chunk)
    check_length(volume.path, present, volume_header.needed)
    if bad:
        raise ReadError(
            volume.path,
            f"{bad} of {math.prod(volume_header.extent)} values are NaN or infinite; "
            "replace them in the file",
        )


def _skip(chunks: Iterator[bytes], start: int) -> Iterator[bytes]:
    """Skip the first bytes of a stream."""
    for chunk in chunks:
        if start < len(chunk):
            yield chunk[start:]
            start = 0
        else:
            start -= len(chunk)

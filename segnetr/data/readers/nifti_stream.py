"""A NIfTI volume that is read plane by plane, so that it never lies in memory as a whole.

Opening follows the file to its end, a gzip stream to its checksum, and judges every number as
`read_volume` does; so no result is made from a file that is cut off or damaged. Its planes are then
read again from the file, as often as they are needed. A packed file is unpacked again each time:
its planes come in the order they are stored in.
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
    judge_header,
    load_voxels,
    open_chunks,
    scale_stored,
)
from segnetr.errors import ReadError

_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeFile:
    """A volume on the disk, every byte of it checked.

    Attributes:
        path: The file.
        judged: What its header says.
        kind: What it is, beside `ImageFile`.
    """

    path: Path
    judged: VolumeHeader
    kind: Literal["volume"] = "volume"

    @property
    def grid(self) -> tuple[int, ...]:
        """(X, Y, Z)."""
        return self.judged.extent[:3]

    @property
    def channels(self) -> int:
        """Values for each voxel, C."""
        return self.judged.extent[3] if len(self.judged.extent) == 4 else 1

    @property
    def affine(self) -> NDArray[np.float64]:
        """As in `ImageFile`."""
        return self.judged.affine

    @property
    def spacing(self) -> tuple[float, ...]:
        """As in `ImageFile`."""
        return self.judged.spacing

    @property
    def header(self) -> Nifti1Header:
        """As in `ImageFile`."""
        return self.judged.header

    @property
    def warnings(self) -> tuple[str, ...]:
        """As in `ImageFile`."""
        return self.judged.warnings

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values once they are scaled."""
        nothing = np.zeros(0, dtype=self.judged.dtype)
        return scale_stored(self.path, self.judged.header, nothing).dtype

    def read_planes(self, first: int = 0) -> Iterator[NDArray[Any]]:
        """Read the planes (X, Y, C) along Z in order, from one of them to the last.

        Raises:
            ReadError: If the file cannot be read any more, or changed since it was opened.
        """
        plane = math.prod(self.grid[:2]) * self.judged.dtype.itemsize
        streams = [
            self._read_pieces(
                self.judged.offset + (channel * self.grid[2] + first) * plane,
                size=plane,
                count=self.grid[2] - first,
            )
            for channel in range(self.channels)
        ]
        for pieces in zip(*streams, strict=True):
            stored = [
                np.frombuffer(piece, dtype=self.judged.dtype).reshape(self.grid[:2], order="F")
                for piece in pieces
            ]
            yield scale_stored(self.path, self.header, np.stack(stored, axis=-1))

    def load(self) -> ImageFile:
        """Read it as a whole.

        Raises:
            ReadError: As `read_volume`.
        """
        try:
            with self.path.open("rb") as stream:
                chunks, _ = open_chunks(self.path, stream, 0)
                return load_voxels(self.path, self.judged, chunks, bytearray())
        except OSError as error:
            raise ReadError(self.path, describe_os_error(error)) from error
        except MemoryError as error:
            raise ReadError(self.path, "there is not enough memory for it") from error

    def _read_pieces(self, start: int, *, size: int, count: int) -> Iterator[bytes]:
        """Read pieces of one size that follow each other."""
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
        """Give the content from a byte on."""
        if not self.path.name.lower().endswith(".gz"):
            stream.seek(start)
            return iter(lambda: stream.read(_PIECE_BYTES), b"")
        chunks, _ = open_chunks(self.path, stream, 0)
        return _skip(chunks, start)


def open_volume(path: Path, *, max_pixels: int, channels: int = 1) -> VolumeFile:
    """Check a volume to its last byte and keep none of its voxels.

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
            judged, chunks = judge_header(
                path, stream, content, max_pixels=max_pixels, channels=channels
            )
            volume = VolumeFile(path=path, judged=judged)
            _follow(volume, content, chunks)
    except OSError as error:
        raise ReadError(path, describe_os_error(error)) from error
    except MemoryError as error:
        raise ReadError(path, "there is not enough memory for it") from error
    return volume


def _follow(volume: VolumeFile, content: bytearray, chunks: Iterator[bytes]) -> None:
    """Read to the end, counting bytes and values that are no numbers."""
    judged = volume.judged
    present, bad = len(content), 0
    del content[: judged.offset]
    while True:
        whole = len(content) - len(content) % judged.dtype.itemsize
        stored = np.frombuffer(bytes(content[:whole]), dtype=judged.dtype)
        values = scale_stored(volume.path, judged.header, stored)
        if values.dtype.kind == "f":
            bad += values.size - int(np.count_nonzero(np.isfinite(values)))
        del content[:whole]
        chunk = next(chunks, None)
        if chunk is None or present > judged.needed:
            break
        content += chunk
        present += len(chunk)
    check_length(volume.path, present, judged.needed)
    if bad:
        raise ReadError(
            volume.path,
            f"{bad} of {math.prod(judged.extent)} values are NaN or infinite; "
            "replace them in the file",
        )


def _skip(chunks: Iterator[bytes], start: int) -> Iterator[bytes]:
    """Leave away the first bytes of a stream."""
    for chunk in chunks:
        if start < len(chunk):
            yield chunk[start:]
            start = 0
        else:
            start -= len(chunk)

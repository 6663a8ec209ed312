"""Store the labels of a volume in memory or on the disk while they are predicted and written.

The labels of a large volume may be kept in an unnamed file that is mapped into the process. Only
touched pages of a mapping are resident. They are released again and again, and their content stays
in the file, so the memory that a volume needs does not grow with its depth. The file is in the
output folder, because `/tmp` is often memory itself, and it disappears with the process.
"""

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from segnetr.config.memory_sizes import format_size
from segnetr.errors import ReadError

SPILL_ABOVE = 32 << 20
"""Labels of up to this many bytes stay in memory."""
RELEASE_EVERY = 4 << 20
"""Pages are released whenever this many bytes were written or read."""
# Linux maps a page of a file with its cached neighbors, aligned to 64 KiB, so small reads far from
# each other map up to two such windows each.
_AROUND = 128 << 10
_ZEROS = 1 << 20
_REFUSED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def allocate_labels(
    grid: tuple[int, int, int], image: Path, *, folder: Path | None = None
) -> NDArray[np.uint8]:
    """Allocate labels, all of them 0.

    Args:
        grid: (height, width, slices).
        image: The file they belong to, for messages.
        folder: Folder of an unnamed file that stores them. None: in memory.

    Returns:
        Labels (H, W, D), stored slice after slice.

    Raises:
        ReadError: If the disk is too full.
    """
    if folder is None:
        return np.zeros(grid, dtype=np.uint8, order="F")
    size = math.prod(grid)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            _reserve(file, size)
            mapping = mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise ReadError(
            image,
            f"cannot keep its {format_size(size)} of labels in {folder}: "
            f"{error.strerror or error}; free space or choose another --out",
        ) from error
    return np.ndarray(grid, dtype=np.uint8, buffer=mapping, order="F")


def is_worth_a_file(grid: tuple[int, ...]) -> bool:
    """Return whether labels of one byte each are large enough to be stored in a file."""
    return math.prod(grid) > SPILL_ABOVE


def count_resident(grid: tuple[int, ...], axis: int) -> int:
    """Return the largest number of bytes in memory of labels that are stored on the disk.

    Args:
        grid: (X, Y, Z) of the file.
        axis: Axis along which the volume is sliced. Planes are written along the last axis.
    """
    plane = math.prod(grid[:2])
    runs = 1 if axis == len(grid) - 1 else grid[axis]
    read = RELEASE_EVERY + plane + runs * _AROUND
    written = RELEASE_EVERY + math.prod(grid) // grid[axis] + _AROUND
    return min(math.prod(grid), max(read, written))


class PageRelease:
    """Releases pages of labels on the disk whenever enough of them were touched.

    Args:
        values: Labels, or any view of them. Nothing is released for labels in memory.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self._mapping = _find_mapping(values)
        self._touched = 0

    def touch(self, count: int) -> None:
        """Record that this many bytes were written or read and are not in use now."""
        self._touched += count
        if self._touched >= RELEASE_EVERY:
            self.release()

    def release(self) -> None:
        """Release all pages now."""
        self._touched = 0
        if self._mapping is not None:
            # For a shared mapping of a file this drops pages from memory and loses no data.
            self._mapping.madvise(mmap.MADV_DONTNEED)


def walk_planes(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the planes (X, Y) of (X, Y, Z) in order and release pages of labels on the disk."""
    release = PageRelease(values)
    for index in range(values.shape[2]):
        yield values[:, :, index]
        release.touch(math.prod(values.shape[:2]))


def _find_mapping(values: NDArray[Any]) -> mmap.mmap | None:
    owner: object = values
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, mmap.mmap) else None


def _reserve(file: BinaryIO, size: int) -> None:
    """Reserve disk space now: writing to a mapped page without space would raise SIGBUS."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
    else:
        return
    zeros = bytes(_ZEROS)
    left = size
    while left:
        left -= os.write(file.fileno(), zeros[: min(left, _ZEROS)])

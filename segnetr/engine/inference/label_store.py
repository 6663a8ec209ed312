"""Where the labels of a volume lie while they are found and written: in memory, or on the disk.

A large volume's labels may lie in a file without a name, mapped into the process. Of a mapping only
the pages that were touched are resident; they are given back again and again, and what was written
to them stays with the file. So the memory a volume needs does not grow with its depth. The file is
in the folder of the results, for `/tmp` is often memory itself, and it is gone with the process,
however that ends.
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
"""Labels of at most so many bytes are not worth a file."""
RELEASE_EVERY = 4 << 20
"""Pages are given back whenever so many bytes were written or read."""
# Linux maps a page of a file together with those around it that are in its cache, 64 KiB aligned,
# so what is read in small pieces far from each other brings up to two such windows for each.
_AROUND = 128 << 10
_ZEROS = 1 << 20
_REFUSED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


def allocate_labels(
    grid: tuple[int, int, int], image: Path, *, folder: Path | None = None
) -> NDArray[np.uint8]:
    """Make room for labels, all of them 0.

    Args:
        grid: (height, width, slices).
        image: The file they belong to, for messages.
        folder: Where they lie in a file without a name; None: in memory.

    Returns:
        Labels (H, W, D), slice after slice in memory or in the file.

    Raises:
        ReadError: If the disk has no room for them.
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
    """Tell whether labels of one byte each are so large that memory is better kept free of them."""
    return math.prod(grid) > SPILL_ABOVE


def count_resident(grid: tuple[int, ...], axis: int) -> int:
    """Count the bytes of labels on the disk that are in memory at once, at most.

    Args:
        grid: (X, Y, Z) of the file.
        axis: The one slices were stacked along; planes are written along the last.
    """
    plane = math.prod(grid[:2])
    pieces = 1 if axis == len(grid) - 1 else grid[axis]
    read = RELEASE_EVERY + plane + pieces * _AROUND
    painted = RELEASE_EVERY + math.prod(grid) // grid[axis] + _AROUND
    return min(math.prod(grid), max(read, painted))


class PageRelease:
    """Gives pages of labels that lie on the disk back, whenever enough of them were touched.

    Args:
        values: Labels, or any view of them; of what is in memory nothing is given back.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self._mapping = _find_mapping(values)
        self._touched = 0

    def touch(self, count: int) -> None:
        """Say that so many bytes were written or read, and that nobody reads on there just now."""
        self._touched += count
        if self._touched >= RELEASE_EVERY:
            self.give_back()

    def give_back(self) -> None:
        """Give back all pages now."""
        self._touched = 0
        if self._mapping is not None:
            # Of a shared mapping of a file this forgets no data, only that it is in memory.
            self._mapping.madvise(mmap.MADV_DONTNEED)


def walk_planes(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Give the planes (X, Y) of (X, Y, Z) in order; pages of labels on the disk are given back."""
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
    """Take room on the disk now: a mapped page without room would end the process (SIGBUS)."""
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

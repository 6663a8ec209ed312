"""Arrays in the cache that are verified each time they are read.

Decoding processes import this module, so it must not import torch or MONAI.
"""

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from segnetr.data.preprocessing.resize import Array
from segnetr.errors import ReadError, WriteError


class ArraySource(Protocol):
    """The original files of a cached array."""

    @property
    def hashes(self) -> tuple[str, ...]:
        """sha256 of each file, the image first."""
        ...

    def rebuild(self) -> None:
        """Decode the files again and replace the array.

        Raises:
            ReadError: If the files were changed, or cannot be read any more.
            WriteError: If the cache cannot be written.
        """
        ...


@dataclass(frozen=True, slots=True)
class CachedArray(os.PathLike[str]):
    """An array in the cache.

    Attributes:
        path: .npy file.
        checksums: CRC-32 of the values; for a volume, of each slice.
        source: Its original files.
    """

    path: Path
    checksums: tuple[int, ...]
    source: ArraySource = field(compare=False)

    def __fspath__(self) -> str:
        """Return the path as text."""
        return str(self.path)

    def __str__(self) -> str:
        """Return the path as text."""
        return str(self.path)


def compute_checksums(array: Array, *, by_slice: bool) -> tuple[int, ...]:
    """Return the CRC-32 of the values of an array, or of each slice along the first axis."""
    parts = array if by_slice else array[None]
    return tuple(zlib.crc32(np.ascontiguousarray(part).data) for part in parts)


def open_array(
    array: CachedArray | Path,
    *,
    indices: tuple[int, ...] | None = None,
    on_repair: Callable[[str], None],
) -> Array:
    """Return a memory-mapped array after its checksum was verified; a damaged one is built again.

    Args:
        array: The array. A plain path is not verified.
        indices: The slices of a volume that will be used and are verified.
        on_repair: Receives one line if the array was damaged.

    Raises:
        OSError: If a plain path cannot be read.
        ValueError: If a plain path is no .npy file.
        ReadError: If the array is damaged, and its files were changed or cannot be read any more,
            or the cache cannot be written.
    """
    if isinstance(array, Path):
        return _map(array)
    values, damage = _open_verified(array, indices)
    if values is not None:
        return values
    try:
        array.source.rebuild()
    except WriteError as error:
        raise ReadError(
            array.path, f"the cached copy is damaged ({damage}) and cannot be replaced: {error}"
        ) from error
    on_repair(f"{array.path}: the cached copy was damaged ({damage}) and was decoded again")
    values, damage = _open_verified(array, indices)
    if values is None:
        raise ReadError(array.path, f"a new copy is damaged as well ({damage}); check the disk")
    return values


def _open_verified(array: CachedArray, indices: tuple[int, ...] | None) -> tuple[Array | None, str]:
    """Return the values, or None and the damage."""
    try:
        values = _map(array.path)
    except (OSError, ValueError, EOFError) as error:
        return None, " ".join(str(error).split())
    if indices is None:
        found, expected = compute_checksums(values, by_slice=False), array.checksums
    elif len(values) != len(array.checksums):
        return None, "wrong number of slices"
    else:
        expected = tuple(array.checksums[index] for index in indices)
        found = tuple(zlib.crc32(np.ascontiguousarray(values[index]).data) for index in indices)
    return (values, "") if found == expected else (None, "wrong checksum")


def _map(path: Path) -> Array:
    # Not numpy.load, which would also open archives.
    return np.asarray(np.lib.format.open_memmap(path, mode="r"))

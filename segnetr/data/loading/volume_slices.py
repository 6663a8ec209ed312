"""Slices of cached volumes as training samples, with neighboring slices as channels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.data.cache.arrays import CachedArray
from segnetr.data.cache.segmentation import CachedCase


@dataclass(frozen=True, slots=True)
class SliceOf:
    """Reference to a slice of a cached volume.

    Attributes:
        path: .npy file of all slices, (D, h, w, C) or (D, h, w).
        index: Index of the slice.
        neighbors: Slices on either side that are added as channels. For (D, h, w, C) only.
    """

    path: CachedArray | Path
    index: int
    neighbors: int = 0

    def __str__(self) -> str:
        """Return the file and the slice, for messages."""
        return f"{self.path}, slice {self.index}"

    def take(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the slice from the array of all slices: (h, w, C * (2 k + 1)), or (h, w).

        The order of the channels is that of `segnetr.data.volumes.slice_stack.SliceStack.view`.
        """
        if not self.neighbors:
            return np.asarray(array[self.index])
        return np.concatenate([array[i] for i in self.indices(len(array))], axis=-1)

    def indices(self, depth: int) -> tuple[int, ...]:
        """Return the slices of a volume with `depth` slices; those at its ends are repeated."""
        around = range(self.index - self.neighbors, self.index + self.neighbors + 1)
        return tuple(min(max(index, 0), depth - 1) for index in around)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedSlice:
    """A slice that is ready for loading.

    Attributes:
        case_id: Id of the volume and index of the slice, for example `patient001_frame01#7`.
        image: Slice of the image, with neighbors.
        mask: Slice of the mask.
    """

    case_id: str
    image: SliceOf
    mask: SliceOf


def list_slices(
    entries: Sequence[CachedCase], *, neighbors: int, empty_share: float
) -> list[CachedSlice]:
    """Return the slices of cached volumes as samples, volume by volume.

    Args:
        entries: The volumes.
        neighbors: Slices on either side that are added as channels.
        empty_share: Largest share of slices without foreground. 1 uses all slices. Slices are left
            out by a hash of their ids, so adding a volume changes few of them.

    Returns:
        The slices. Can be empty if the volumes have no foreground.
    """
    slices = [(entry, index) for entry in entries for index in range(len(entry.has_foreground))]
    empty = [(entry, index) for entry, index in slices if not entry.has_foreground[index]]
    foreground_count = len(slices) - len(empty)
    if empty_share < 1:
        # So that foreground / (foreground + empty) is at least 1 - share.
        empty_count = int(empty_share * foreground_count / (1 - empty_share) + 1e-9)
        ranked = sorted(empty, key=lambda item: _hash(_name(*item)))
        left_out = {_name(*item) for item in ranked[empty_count:]}
        slices = [item for item in slices if _name(*item) not in left_out]
    return [
        CachedSlice(
            case_id=_name(entry, index),
            image=SliceOf(entry.image, index, neighbors),
            mask=SliceOf(entry.mask, index),
        )
        for entry, index in slices
    ]


def _name(entry: CachedCase, index: int) -> str:
    return f"{entry.case_id}#{index}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

"""Cached volumes as training samples: each slice one, with its neighbors as channels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.data.cache.segmentation import CachedCase


@dataclass(frozen=True, slots=True)
class SliceOf:
    """A slice of a cached volume, and what comes with it.

    Attributes:
        path: .npy file of all slices, (D, h, w, C) or (D, h, w).
        index: Which slice.
        neighbors: Slices on either side that are put with it as channels; (D, h, w, C) only.
    """

    path: Path
    index: int
    neighbors: int = 0

    def __str__(self) -> str:
        """Name the file and the slice, for messages."""
        return f"{self.path}, slice {self.index}"

    def take(self, array: NDArray[Any]) -> NDArray[Any]:
        """Take it out of the array of all: (h, w, C * (2 k + 1)), or (h, w).

        The order of the channels is that of `segnetr.data.volumes.slice_stack.SliceStack.view`.
        """
        last = len(array) - 1
        if not self.neighbors:
            return np.asarray(array[self.index])
        reach = range(self.index - self.neighbors, self.index + self.neighbors + 1)
        return np.concatenate([array[min(max(at, 0), last)] for at in reach], axis=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedSlice:
    """A slice that is ready for loading.

    Attributes:
        case_id: The volume's id and the slice, `patient001_frame01#7`.
        image: Slice of the image, with neighbors.
        mask: Slice of the mask.
    """

    case_id: str
    image: SliceOf
    mask: SliceOf


def list_slices(
    entries: Sequence[CachedCase], *, neighbors: int, empty_share: float
) -> list[CachedSlice]:
    """Give the slices of cached volumes as samples, volume by volume.

    Args:
        entries: The volumes.
        neighbors: Slices on either side that come with each.
        empty_share: Largest share of slices without foreground; 1: all. Which of them stay is
            decided by a hash of their names, so another volume changes few.

    Returns:
        The slices. Empty volumes can leave none.
    """
    slices = [(entry, index) for entry in entries for index in range(len(entry.has_foreground))]
    empty = [(entry, index) for entry, index in slices if not entry.has_foreground[index]]
    has_foreground = len(slices) - len(empty)
    if empty_share < 1:
        # filled / (filled + kept) is at least 1 - share.
        kept = int(empty_share * has_foreground / (1 - empty_share) + 1e-9)
        ranked = sorted(empty, key=lambda one: _hash(_name(*one)))
        left_out = {_name(*one) for one in ranked[kept:]}
        slices = [one for one in slices if _name(*one) not in left_out]
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

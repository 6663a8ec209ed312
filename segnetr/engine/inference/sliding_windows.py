"""Sliding windows over a plane, and the weighted mean of their predictions.

Only the rows under the current row of windows are kept as sums. When the next row of windows
begins, the rows above it are complete and are returned. An image of any height therefore needs K
planes of the height of one window.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Weights = Literal["gaussian", "constant"]

# Standard deviation as a share of the window side, and smallest weight relative to the largest of
# 1. Both are those of MONAI's sliding_window_inference, so that results agree.
_SIGMA_SCALE = 0.125
_MIN_WEIGHT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowGrid:
    """Positions and weights of the windows of a plane.

    Attributes:
        plane: (height, width) of the plane in pixels, at least those of a window.
        size: (height, width) of a window in pixels.
        corners: (top, left) of each window, row by row.
        weight: (h, w) weight of each pixel in a window.
        total: (H, W) sum of the weights of each pixel of the plane.
    """

    plane: tuple[int, int]
    size: tuple[int, int]
    corners: tuple[tuple[int, int], ...]
    weight: Tensor
    total: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Band:
    """Complete rows of a slice, as wide as the slice.

    Attributes:
        index: Index of the slice.
        top: First row.
        probabilities: (K, rows, W).
    """

    index: int
    top: int
    probabilities: Tensor


def make_window_grid(
    plane: tuple[int, int],
    size: tuple[int, int],
    *,
    overlap: float,
    weights: Weights,
    device: torch.device,
) -> WindowGrid:
    """Cover a plane with windows.

    Args:
        plane: (height, width) in pixels, at least `size`.
        size: (height, width) of a window in pixels.
        overlap: Overlap of neighboring windows as a share of the window, 0 to below 1.
        weights: "gaussian": the center of a window has the largest weight; "constant": all pixels
            have the same weight.
        device: Device of the weights.
    """
    rows, columns = (
        _list_starts(side, window, overlap) for side, window in zip(plane, size, strict=True)
    )
    weight = window_weights(size, weights).to(device)
    total = torch.zeros(plane, device=device)
    corners = tuple((top, left) for top in rows for left in columns)
    for top, left in corners:
        total[top : top + size[0], left : left + size[1]] += weight
    return WindowGrid(plane=plane, size=size, corners=corners, weight=weight, total=total)


def window_weights(size: tuple[int, int], weights: Weights) -> Tensor:
    """Return the weight (h, w) of each pixel of a window, above 0 and at most 1."""
    if weights == "constant":
        return torch.ones(size)
    profiles = [
        torch.exp(-((torch.arange(side) - (side - 1) / 2) ** 2) / (2 * (_SIGMA_SCALE * side) ** 2))
        for side in size
    ]
    weight = profiles[0][:, None] * profiles[1][None, :]
    return weight.clamp_min(max(float(weight.min()), _MIN_WEIGHT))


def _list_starts(side: int, window: int, overlap: float) -> list[int]:
    """Return the first pixel of each window along a side. The last window ends at the border."""
    if side <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    count = 1 + math.ceil((side - window) / step)
    return [min(number * step, side - window) for number in range(count)]


class WindowAccumulator:
    """Adds up the windows of one slice in the order of their corners.

    Args:
        grid: Positions and weights of the windows.
        index: Index of the slice.
        num_classes: Number of planes K.
        dtype: Of the sums. float16 halves their size and costs three decimal places.
    """

    def __init__(
        self, grid: WindowGrid, *, index: int, num_classes: int, dtype: torch.dtype
    ) -> None:
        self._grid = grid
        self._index = index
        self._top = 0
        self._sums = torch.zeros(
            (num_classes, grid.size[0], grid.plane[1]), dtype=dtype, device=grid.weight.device
        )

    def add(self, corner: tuple[int, int], probabilities: Tensor) -> Iterator[Band]:
        """Add the probabilities (K, h, w) of a window and yield the rows that this completes."""
        top, left = corner
        if top != self._top:
            done = top - self._top
            yield self._make_band(done)
            # A copy, because source and target overlap.
            self._sums[:, :-done] = self._sums[:, done:].clone()
            self._sums[:, -done:] = 0
            self._top = top
        region = self._sums[:, :, left : left + self._grid.size[1]]
        region.addcmul_(probabilities.to(region.dtype), self._grid.weight.to(region.dtype))

    def result(self) -> Band:
        """Return the last rows, after all windows were added."""
        return self._make_band(self._sums.shape[1])

    def _make_band(self, rows: int) -> Band:
        total = self._grid.total[self._top : self._top + rows]
        mean = self._sums[:, :rows].float() / total
        return Band(index=self._index, top=self._top, probabilities=mean)


def gather_planes(bands: Iterator[Band], height: int) -> Iterator[tuple[int, Tensor]]:
    """Concatenate the bands of each slice: yield its index and (K, height, W), in order."""
    parts: list[Tensor] = []
    rows = 0
    for band in bands:
        parts.append(band.probabilities)
        rows += band.probabilities.shape[1]
        if rows == height:
            yield band.index, parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            parts, rows = [], 0

"""Windows that slide over a plane, and the weighted mean of what a network says about each.

Only the rows that a band of windows covers are held as sums: once the next band begins, the rows
above it are complete and given away. So the memory for a image of any height is that of K classes
times the height of one window.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Weights = Literal["gaussian", "constant"]

# Deviation of the bell as a share of the window's side, and the least weight beside its highest of
# 1: those of MONAI's sliding_window_inference, so that networks answer as its users know them.
_DEVIATION = 0.125
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowGrid:
    """Where the windows of a plane lie and how their answers are weighted.

    Attributes:
        plane: (height, width) of the plane in pixels, nowhere smaller than a window.
        size: (height, width) of a window in pixels.
        corners: (top, left) of each window, row by row.
        weight: (h, w) of a pixel in a window.
        total: (H, W) sum of the weights that each pixel of the plane gets.
    """

    plane: tuple[int, int]
    size: tuple[int, int]
    corners: tuple[tuple[int, int], ...]
    weight: Tensor
    total: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Band:
    """Some finished rows of a slice.

    Attributes:
        index: Number of the slice.
        top: First of the rows.
        answer: Probabilities (K, rows, W).
    """

    index: int
    top: int
    answer: Tensor


def lay_windows(
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
        overlap: Share of a window that the next one covers again, 0 to below 1.
        weights: "gaussian": the middle of a window counts most; "constant": all pixels alike.
        device: Where the weights lie.
    """
    rows, columns = (
        _place(side, window, overlap) for side, window in zip(plane, size, strict=True)
    )
    weight = window_weights(size, weights).to(device)
    total = torch.zeros(plane, device=device)
    corners = tuple((top, left) for top in rows for left in columns)
    for top, left in corners:
        total[top : top + size[0], left : left + size[1]] += weight
    return WindowGrid(plane=plane, size=size, corners=corners, weight=weight, total=total)


def window_weights(size: tuple[int, int], weights: Weights) -> Tensor:
    """Give the weight (h, w) of each pixel of a window, 1 at most and above 0."""
    if weights == "constant":
        return torch.ones(size)
    bells = [
        torch.exp(-((torch.arange(side) - (side - 1) / 2) ** 2) / (2 * (_DEVIATION * side) ** 2))
        for side in size
    ]
    weight = bells[0][:, None] * bells[1][None, :]
    return weight.clamp_min(max(float(weight.min()), _LEAST_WEIGHT))


def _place(side: int, window: int, overlap: float) -> list[int]:
    """Give the first pixel of each window along a side; the last one ends with the side."""
    if side <= window:
        return [0]
    step = max(1, int(window * (1 - overlap)))
    count = 1 + math.ceil((side - window) / step)
    return [min(number * step, side - window) for number in range(count)]


class BandSums:
    """Adds up the windows of one slice in the order of their corners.

    Args:
        grid: Where the windows lie.
        index: Number of the slice.
        num_classes: K.
        dtype: Of the sums; float16 halves them and costs three decimal places.
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

    def add(self, corner: tuple[int, int], answer: Tensor) -> Iterator[Band]:
        """Take in what was said about a window (K, h, w); give the rows this completes."""
        top, left = corner
        if top != self._top:
            done = top - self._top
            yield self._give(done)
            # A copy, because source and target overlap.
            self._sums[:, :-done] = self._sums[:, done:].clone()
            self._sums[:, -done:] = 0
            self._top = top
        part = self._sums[:, :, left : left + self._grid.size[1]]
        part.addcmul_(answer.to(part.dtype), self._grid.weight.to(part.dtype))

    def finish(self) -> Band:
        """Give the last rows, once all windows are added."""
        return self._give(self._sums.shape[1])

    def _give(self, rows: int) -> Band:
        total = self._grid.total[self._top : self._top + rows]
        answer = self._sums[:, :rows].float() / total
        return Band(index=self._index, top=self._top, answer=answer)


def gather_planes(bands: Iterator[Band], height: int) -> Iterator[tuple[int, Tensor]]:
    """Put the rows of each slice together: its number and (K, height, W), in order."""
    parts: list[Tensor] = []
    rows = 0
    for band in bands:
        parts.append(band.answer)
        rows += band.answer.shape[1]
        if rows == height:
            yield band.index, parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            parts, rows = [], 0

"""Rectangular windows of channels-last maps of any size."""

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, sides: tuple[int, int]) -> Tensor:
    """Pad maps (N, H, W, D) with zeros below and to the right, up to whole windows."""
    height, width = x.shape[1:3]
    if height % sides[0] == 0 and width % sides[1] == 0:
        return x
    return F.pad(x, (0, 0, 0, -width % sides[1], 0, -height % sides[0]))


def partition_windows2d(x: Tensor, sides: tuple[int, int]) -> Tensor:
    """Divide maps (N, H, W, D) into windows (N, L, R*S, D) of R rows and S columns, row by row."""
    height, width, channels = x.shape[1:]
    rows, columns = height // sides[0], width // sides[1]
    cut = x.reshape(-1, rows, sides[0], columns, sides[1], channels)
    return cut.transpose(2, 3).reshape(-1, rows * columns, sides[0] * sides[1], channels)


def merge_windows2d(windows: Tensor, grid: tuple[int, int], sides: tuple[int, int]) -> Tensor:
    """Merge windows (N, L, R*S, D) of a grid (rows, columns) to maps (N, H, W, D)."""
    channels = windows.shape[-1]
    cut = windows.reshape(-1, *grid, *sides, channels)
    return cut.transpose(2, 3).reshape(-1, grid[0] * sides[0], grid[1] * sides[1], channels)


def padding_mask(height: int, width: int, *, sides: tuple[int, int], like: Tensor) -> Tensor | None:
    """Return a mask for the padding of `pad_to_multiple`.

    Returns:
        (L, 1, R*S): 0 for positions of the map, -inf for the padding; None without padding.
    """
    if height % sides[0] == 0 and width % sides[1] == 0:
        return None
    real = torch.zeros(1, height, width, 1, dtype=like.dtype, device=like.device)
    pads = (0, 0, 0, -width % sides[1], 0, -height % sides[0])
    padded = F.pad(real, pads, value=float("-inf"))
    return partition_windows2d(padded, sides)[0].transpose(1, 2)


def window_position_index(rows: int, columns: int, *, device: torch.device | None = None) -> Tensor:
    """Return the index of the relative position of each pair of positions in a rectangle.

    Returns:
        Indices (R*S, R*S) into a table of (2R - 1) * (2S - 1) rows.
    """
    positions = (torch.arange(side, device=device) for side in (rows, columns))
    down, right = (position.reshape(-1) for position in torch.meshgrid(*positions, indexing="ij"))
    below = down[:, None] - down[None, :] + rows - 1
    across = right[:, None] - right[None, :] + columns - 1
    return below * (2 * columns - 1) + across

"""Cutting maps into windows, moving windows, and undoing both.

SegNetr names four operations: local partition (LP), local reverse (LR), global partition (GP) and
global reverse (GR). Here LP is `partition_windows`, LR is `merge_windows`, GP is
`partition_displaced` and GR is `merge_displaced`. All of them only move values.

Source:
    Cheng et al., SegNetr, arXiv:2307.02953, section 2.1 (local-global interaction).
    The order of the displacement is our reading: windows are counted from 1 and the motion is
    cyclic. Counted from 0, a window would change places inside the same double window, and the
    global branch would see what the local one sees.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Grow maps with zeros at the bottom and at the right.

    Args:
        x: Maps (N, C, H, W).
        multiple: Sides become multiples of this, in pixels.

    Returns:
        Maps (N, C, H', W'), where H' and W' are the next multiples; `x` itself where they are H, W.
    """
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, below)) if below or right else x


def partition_windows(x: Tensor, size: int) -> Tensor:
    """Cut maps into square windows that do not overlap (LP).

    Args:
        x: Maps (N, C, H, W). H and W are multiples of `size`.
        size: Side of a window, P, in feature pixels.

    Returns:
        Windows (N, L, P*P, C) with L = H/P * W/P, row by row; in a window, row by row too.

    Raises:
        ValueError: If H or W is no multiple of `size`; pad first, with `pad_to_multiple`.
    """
    channels, height, width = x.shape[-3:]
    _check_grid(height, width, size)
    rows, columns = height // size, width // size
    cut = x.reshape(-1, channels, rows, size, columns, size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(-1, rows * columns, size * size, channels)


def merge_windows(windows: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Put windows back to maps (LR), the inverse of `partition_windows`.

    Args:
        windows: Windows (N, L, P*P, C).
        grid: Number of windows along the height and along the width; their product is L.
        size: Side of a window, P, in feature pixels.

    Returns:
        Maps (N, C, H, W).
    """
    rows, columns = grid
    channels = windows.shape[-1]
    cut = windows.reshape(-1, rows, columns, size, size, channels)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, rows * size, columns * size)


def displace_windows(x: Tensor, size: int) -> Tensor:
    """Move every window by one place along both axes, cyclically.

    Along the width, windows 1, 3, 5, ... (counted from 1) go one place to the left and windows
    2, 4, 6, ... one to the right; along the height, up and down. The first goes to the last place
    and the last to the first: of 14 windows the new order is 14, 3, 2, 5, 4, ..., 13, 12, 1.
    Doing it twice gives the map back, because the motion exchanges pairs.

    From six windows along an axis on, every double window then holds windows of two former double
    windows at least. With four, the two double windows only change places, and with two there is
    only one: maps that small are seen whole by the double windows' neighbors anyway.

    Args:
        x: Maps (N, C, H, W).
        size: Side of a window, P, in feature pixels. H and W are multiples of 2P: of an odd number
            of windows the first and the last would both want the same place.

    Returns:
        Maps (N, C, H, W) with their windows moved.

    Raises:
        ValueError: If H or W is no multiple of 2P; pad first, with `pad_to_multiple`.
    """
    height, width = x.shape[-2:]
    _check_grid(height, width, 2 * size)
    return _exchange(_exchange(x, -1, size), -2, size)


def partition_displaced(x: Tensor, size: int) -> Tensor:
    """Move windows of side P, then cut windows of side 2P (GP).

    Args:
        x: Maps (N, C, H, W). H and W are multiples of 2P.
        size: Side of the windows that move, P, in feature pixels.

    Returns:
        Windows (N, L, 4*P*P, C) with L = H/2P * W/2P.

    Raises:
        ValueError: If H or W is no multiple of 2P; pad first, with `pad_to_multiple`.
    """
    return partition_windows(displace_windows(x, size), 2 * size)


def merge_displaced(windows: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Put displaced double windows back (GR), the inverse of `partition_displaced`.

    Args:
        windows: Windows (N, L, 4*P*P, C).
        grid: Number of double windows along the height and along the width.
        size: Side of the windows that moved, P, in feature pixels.

    Returns:
        Maps (N, C, H, W).
    """
    return displace_windows(merge_windows(windows, grid, 2 * size), size)


def _exchange(x: Tensor, axis: int, size: int) -> Tensor:
    """Exchange windows (2, 3), (4, 5), ... and (last, first) along one axis."""
    shifted = torch.roll(x, -size, axis)
    pairs = shifted.unflatten(axis, (-1, 2, size))
    return torch.roll(pairs.flip(axis - 1).flatten(axis - 2, axis), size, axis)


def _check_grid(height: int, width: int, size: int) -> None:
    if height % size or width % size:
        raise ValueError(f"a map of {height}x{width} has no whole windows of {size}; pad it first")

"""Partition maps into windows, displace windows, and invert both.

SegNetr names four operations: local partition (LP), local reverse (LR), global partition (GP) and
global reverse (GR). Here LP is `partition_windows`, LR is `merge_windows`, GP is
`partition_displaced` and GR is `merge_displaced`. They move values and do not change them.

Source:
    Cheng et al., SegNetr, arXiv:2307.02953, section 2.1 (local-global interaction).
    The paper does not define the order of the displacement. We count windows from 1 and move them
    cyclically. Counted from 0, windows would be swapped inside the same double window, and the
    global branch would see the same pixels as the local one.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad maps with zeros at the bottom and right.

    Args:
        x: Maps (N, C, H, W).
        multiple: Sides become multiples of this, in pixels.

    Returns:
        Maps (N, C, H', W'), where H' and W' are the next multiples. `x` itself if no padding is
        needed.
    """
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, below)) if below or right else x


def partition_windows(x: Tensor, size: int) -> Tensor:
    """Partition maps into square windows without overlap (LP).

    Args:
        x: Maps (N, C, H, W). H and W are multiples of `size`.
        size: Side of a window, P, in feature pixels.

    Returns:
        Windows (N, L, P*P, C) with L = H/P * W/P. Windows, and positions inside a
        window, are in row-major order.

    Raises:
        ValueError: If H or W is not a multiple of `size`. Use `pad_to_multiple` first.
    """
    _check_grid(x.shape[-2], x.shape[-1], size)
    return rearrange(x, "n c (row y) (column x) -> n (row column) (y x) c", y=size, x=size)


def merge_windows(windows: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Merge windows into maps (LR), the inverse of `partition_windows`.

    Args:
        windows: Windows (N, L, P*P, C).
        grid: Number of windows along the height and along the width; their product is L.
        size: Side of a window, P, in feature pixels.

    Returns:
        Maps (N, C, H, W).
    """
    lengths = {"row": grid[0], "column": grid[1], "y": size, "x": size}
    return rearrange(windows, "n (row column) (y x) c -> n c (row y) (column x)", **lengths)


def displace_windows(x: Tensor, size: int) -> Tensor:
    """Move every window by one position along both axes, cyclically.

    Along the width, windows 1, 3, 5, ... (counted from 1) move one position left and windows
    2, 4, 6, ... one position right; along the height, up and down. The first and the last window
    are swapped: the new order of 14 windows is 14, 3, 2, 5, 4, ..., 13, 12, 1.
    The operation swaps pairs, so it is its own inverse.

    With six or more windows along an axis, every double window then contains windows of at least
    two original double windows. With four windows, the two double windows are only swapped; with
    two windows there is only one double window.

    Args:
        x: Maps (N, C, H, W).
        size: Side of a window, P, in feature pixels. H and W are multiples of 2P: with an odd
            number of windows, the pairs would overlap.

    Returns:
        Maps (N, C, H, W) with displaced windows.

    Raises:
        ValueError: If H or W is not a multiple of 2P. Use `pad_to_multiple` first.
    """
    height, width = x.shape[-2:]
    _check_grid(height, width, 2 * size)
    return _swap(_swap(x, -1, size), -2, size)


def partition_displaced(x: Tensor, size: int) -> Tensor:
    """Displace windows of side P, then partition into windows of side 2P (GP).

    Args:
        x: Maps (N, C, H, W). H and W are multiples of 2P.
        size: Side of the windows that move, P, in feature pixels.

    Returns:
        Windows (N, L, 4*P*P, C) with L = H/2P * W/2P.

    Raises:
        ValueError: If H or W is not a multiple of 2P. Use `pad_to_multiple` first.
    """
    return partition_windows(displace_windows(x, size), 2 * size)


def merge_displaced(windows: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Merge displaced double windows into maps (GR), the inverse of `partition_displaced`.

    Args:
        windows: Windows (N, L, 4*P*P, C).
        grid: Number of double windows along the height and along the width.
        size: Side of the windows that moved, P, in feature pixels.

    Returns:
        Maps (N, C, H, W).
    """
    return displace_windows(merge_windows(windows, grid, 2 * size), size)


def _swap(x: Tensor, axis: int, size: int) -> Tensor:
    """Swap windows (2, 3), (4, 5), ... and (last, first) along one axis."""
    shifted = torch.roll(x, -size, axis)
    pairs = shifted.unflatten(axis, (-1, 2, size))
    return torch.roll(pairs.flip(axis - 1).flatten(axis - 2, axis), size, axis)


def _check_grid(height: int, width: int, size: int) -> None:
    if height % size or width % size:
        raise ValueError(f"a map of {height}x{width} has no whole windows of {size}; pad it first")

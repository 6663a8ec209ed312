"""Windows of channels-last maps: partition, merging, shifting, relative positions."""

import torch
import torch.nn.functional as F
from torch import Tensor


def partition_windows(x: Tensor, size: int) -> Tensor:
    """Divide maps into square windows without overlap.

    Args:
        x: Maps (N, H, W, D). H and W are multiples of `size`.
        size: Side of a window, S, in feature pixels.

    Returns:
        Windows (N, L, S*S, D) with L = H/S * W/S, row by row.

    Source:
        Liu et al., Swin Transformer, arXiv:2103.14030, section 3.2.
    """
    height, width, channels = x.shape[1:]
    cut = x.reshape(-1, height // size, size, width // size, size, channels)
    count = (height // size) * (width // size)
    return cut.transpose(2, 3).reshape(-1, count, size * size, channels)


def merge_windows(windows: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Merge windows (N, L, S*S, D) of a grid (rows, columns) to maps (N, H, W, D)."""
    rows, columns = grid
    cut = windows.reshape(-1, rows, columns, size, size, windows.shape[-1])
    return cut.transpose(2, 3).reshape(-1, rows * size, columns * size, windows.shape[-1])


def relative_position_index(window: int) -> Tensor:
    """Return the index of the relative position of each pair of positions in a window.

    Returns:
        Indices (S*S, S*S) into a table of (2S - 1)^2 rows.
    """
    steps = torch.arange(window)
    positions = torch.stack(torch.meshgrid(steps, steps, indexing="ij")).flatten(1)
    offset = positions[:, :, None] - positions[:, None, :] + window - 1
    return offset[0] * (2 * window - 1) + offset[1]


def resize_relative_table(table: Tensor, side: int) -> Tensor:
    """Resize a table of relative positions (T*T, heads) to another side, bicubically.

    Source:
        The loader of microsoft/Swin-Transformer, for other window sizes.
    """
    own = round(table.shape[0] ** 0.5)
    # Strict loading reports tables of another shape.
    if own == side or table.ndim != 2 or own**2 != table.shape[0]:
        return table
    image = table.t().reshape(1, -1, own, own)
    resized = F.interpolate(image, (side, side), mode="bicubic", align_corners=False)
    return resized.reshape(-1, side * side).t().contiguous()


def shifted_window_mask(height: int, width: int, *, window: int, like: Tensor) -> Tensor:
    """Return a mask for positions that are neighbors only because of the cyclic shift.

    Args:
        height: Height of the map before padding, in feature pixels.
        width: Its width.
        window: Side of a window, S.
        like: A tensor of the device and type.

    Returns:
        (L, S*S, S*S): 0 for pairs that may attend to each other, -inf for the others.
    """
    shift = window // 2
    regions = []
    for side in (height, width):
        padded = side + -side % window
        position = torch.arange(padded, device=like.device)
        regions.append((position >= padded - window).long() + (position >= padded - shift).long())
    region = regions[0][:, None] * 3 + regions[1][None, :]
    numbered = partition_windows(region[None, :, :, None], window)[0, :, :, 0]
    apart = numbered[:, :, None] != numbered[:, None, :]
    return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill(
        apart, float("-inf")
    )

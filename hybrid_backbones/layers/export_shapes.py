"""Padding and resizing by sizes that may be symbols while a network is exported."""

import torch
import torch.nn.functional as F
from torch import Tensor


def may_differ(sizes: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Return whether sizes may differ from expected ones.

    While a network is exported for any height and width, its sizes are symbols. Comparing them
    would silently restrict the graph to images with the same result. So the result is True for
    symbols, and the graph contains a padding by zero rows or a resizing to the same size.

    Args:
        sizes: Numbers or symbols.
        expected: As many numbers or symbols.
    """
    is_symbolic = any(isinstance(size, torch.SymInt) for size in (*sizes, *expected))
    return is_symbolic or sizes != expected


def missing_to_multiple(size: int, side: int) -> int:
    """Return the distance from `size` to the next multiple of `side`.

    Exporters can prove that the sum of `size` and the result is a multiple if `size` is a symbol.
    With the remainder of `-size` they search for minutes.
    """
    return (size + side - 1) // side * side - size


def pad_to_stride(x: Tensor, stride: int) -> Tensor:
    """Append rows and columns of zeros to maps (N, C, H, W) up to multiples of `stride`."""
    bottom, right = (missing_to_multiple(side, stride) for side in x.shape[2:])
    return F.pad(x, (0, right, 0, bottom)) if may_differ((right, bottom), (0, 0)) else x


def resize_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (N, C, H, W) bilinearly, if their size is not the requested one already."""
    if not may_differ((x.shape[2], x.shape[3]), size):
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False)

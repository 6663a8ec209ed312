"""Resize position tables of one image size to another."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_backbones.layers.export_shapes import may_differ

Grid = tuple[int, int]


def resize_pair_table(table: Tensor, own: tuple[Grid, Grid], wanted: tuple[Grid, Grid]) -> Tensor:
    """Resize a table with one entry for each query and key to other grids, bicubically.

    Queries and keys keep their positions relative to the sides of the image. Both grids are resized
    one after the other, which is the bicubic interpolation of the table in four dimensions.

    Args:
        table: (A, L, M), L queries and M keys, both row by row.
        own: Rows and columns of the queries, and of the keys, of the table.
        wanted: The same of the result.

    Returns:
        (A, L', M'); the table itself if the grids are the same.
    """
    if own == wanted:
        return table
    (rows, columns), keys = own[0], table.shape[2]
    by_key = table.transpose(1, 2).reshape(1, -1, rows, columns)
    by_key = F.interpolate(by_key, wanted[0], mode="bicubic", align_corners=False)
    by_query = by_key.reshape(table.shape[0], keys, -1).transpose(1, 2).reshape(1, -1, *own[1])
    by_query = F.interpolate(by_query, wanted[1], mode="bicubic", align_corners=False)
    return by_query.reshape(table.shape[0], wanted[0][0] * wanted[0][1], -1)


def resize_positions(table: Tensor, grid: Grid) -> Tensor:
    """Resize position embeddings (1, 1 + S*S, D), class token first, to a grid, bicubically."""
    side = math.isqrt(table.shape[1] - 1)
    if not may_differ(grid, (side, side)):
        return table
    image = table[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    resized = F.interpolate(image, grid, mode="bicubic", align_corners=False)
    return torch.cat((table[:, :1], resized.flatten(2).transpose(1, 2)), 1)

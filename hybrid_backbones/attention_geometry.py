"""The image positions of the queries and keys of an attention.

A block whose attention has positions defines `attention_geometry(*inputs)`, which receives the
inputs of its `forward` and returns an `AttentionGeometry`, or None.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hybrid_backbones.layers.windows2d import partition_windows2d


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionGeometry:
    """The positions of an attention in G groups, each of which attends only within itself.

    Attributes:
        queries: Centers (G, Q, 2), y and x in feature pixels; NaN for tokens without a position.
        keys: The same of the keys, (G, K, 2).
        groups_in: The axis of (N, heads, L, D) that the groups share: that of the images, that of
            the heads, or "none" for one group.
    """

    queries: Tensor
    keys: Tensor
    groups_in: Literal["images", "heads", "none"] = "none"

    def divide(self, tensor: Tensor) -> Tensor:
        """Return queries, keys or scores (N, heads, L, D) with a separate group axis G."""
        count = self.queries.shape[0]
        axis = {"none": 1, "heads": 1, "images": 0}[self.groups_in]
        divided: Tensor = tensor.unflatten(axis, (count, -1) if axis else (-1, count))
        return divided


def find_attention_geometry(module: nn.Module, inputs: tuple[Any, ...]) -> AttentionGeometry | None:
    """Return the geometry of the attention inside a block that is called with these inputs.

    Returns:
        None if the module does not define any.
    """
    hook = getattr(module, "attention_geometry", None)
    geometry: AttentionGeometry | None = None if hook is None else hook(*inputs)
    return geometry


def grid_positions(height: int, width: int, *, step: float = 1.0, first: float = 0.5) -> Tensor:
    """Return the centers (H, W, 2) of a grid with distance `step`, the first at `first`."""
    rows, columns = (first + step * torch.arange(side) for side in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)


def sequence_geometry(height: int, width: int, *, extra: int = 0) -> AttentionGeometry:
    """Return the geometry of a whole map, row by row, behind `extra` tokens without a position."""
    positions = with_tokens(grid_positions(height, width), extra)
    return AttentionGeometry(queries=positions, keys=positions)


def window_geometry(
    size: tuple[int, int],
    window: tuple[int, int],
    *,
    before: tuple[int, int] = (0, 0),
    shift: int = 0,
    groups_in: Literal["images", "heads"] = "images",
) -> AttentionGeometry:
    """Return the geometry of windows of a padded map.

    Args:
        size: Height and width of the map before padding, in feature pixels.
        window: Height and width of a window.
        before: Rows of padding above and columns of padding to the left.
        shift: Feature pixels by which the map was rolled up and to the left.
        groups_in: As in `AttentionGeometry`.
    """
    positions = padded_positions(size, window, before=before)
    windows = partition_windows2d(positions.roll((-shift, -shift), (0, 1))[None], window)[0]
    return AttentionGeometry(queries=windows, keys=windows, groups_in=groups_in)


def padded_positions(
    size: tuple[int, int], window: tuple[int, int], *, before: tuple[int, int] = (0, 0)
) -> Tensor:
    """Return the positions (H', W', 2) of a map padded to whole windows; NaN in the padding."""
    sides = tuple(side + -side % length for side, length in zip(size, window, strict=True))
    padded = torch.full((*sides, 2), torch.nan)
    rows, columns = (slice(a, a + side) for a, side in zip(before, size, strict=True))
    padded[rows, columns] = grid_positions(*size)
    return padded


def with_tokens(positions: Tensor, extra: int) -> Tensor:
    """Flatten positions (H, W, 2) to (1, E + L, 2) behind E tokens without a position."""
    flat = positions.flatten(0, 1)
    return torch.cat([flat.new_full((extra, 2), torch.nan), flat])[None]

"""Where in the image the queries and keys of each kind of attention lie."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hybrid_backbones.architectures.cmt import CMTBlock
from hybrid_backbones.architectures.cvt import CvTBlock
from hybrid_backbones.architectures.moa import GlobalAttention, LocalBlock
from hybrid_backbones.architectures.mobilevit import MobileViTBlock, unfold_patches
from hybrid_backbones.architectures.swin import SwinBlock
from hybrid_backbones.architectures.vitae import NormalCell
from hybrid_backbones.architectures.vitae_v2 import NormalCell as WindowedNormalCell
from hybrid_backbones.layers.tokens import TokenTransformer
from hybrid_backbones.layers.windows2d import partition_windows2d

_EVEN = 2  # MobileViT's patches are 2 x 2 places, of which each sees its like.


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionGeometry:
    """The places of an attention in G groups that each attend within themselves.

    Attributes:
        queries: Middles (G, Q, 2), y and x in feature pixels; not a number where there is none.
        keys: Likewise (G, K, 2).
        groups_in: Which axis of (N, heads, L, D) the groups share: the images', the heads' or none
            where there is one group.
    """

    queries: Tensor
    keys: Tensor
    groups_in: Literal["images", "heads", "none"] = "none"

    def divide(self, tensor: Tensor) -> Tensor:
        """Give the groups of queries, keys or scores (N, heads, L, D) an axis of their own, G."""
        count = self.queries.shape[0]
        axis = {"none": 1, "heads": 1, "images": 0}[self.groups_in]
        divided: Tensor = tensor.unflatten(axis, (count, -1) if axis else (-1, count))
        return divided


def find_attention_geometry(module: nn.Module, inputs: tuple[Any, ...]) -> AttentionGeometry | None:
    """Give the places of the attention inside a block, from what the block is called with.

    Returns:
        None where the module is no such block.
    """
    match module:
        case SwinBlock():
            return _find_swin(module.window, inputs[0], mask=inputs[1])
        case LocalBlock():
            return _find_moa(module, inputs[0], mask=inputs[2])
        case GlobalAttention() if not module.official:
            return _find_moa_windows(module.window, inputs[0])
        case CMTBlock():
            return _find_cmt(module.attn.reduction, inputs[0])
        case CvTBlock():
            return _find_cvt(inputs[1], inputs[2])
        case NormalCell():
            return _find_tokens(inputs[1], inputs[2])
        case WindowedNormalCell() | TokenTransformer():
            return _find_centered_windows(module.window, inputs[0])
        case MobileViTBlock():
            return _find_mobilevit(inputs[0])
        case _:
            return None


def grid_places(height: int, width: int, *, step: float = 1.0, first: float = 0.5) -> Tensor:
    """Give the middles (H, W, 2) of a grid's places, `step` apart, from `first` on."""
    rows, columns = (first + step * torch.arange(side) for side in (height, width))
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)


def _pad(places: Tensor, before: tuple[int, int], sides: tuple[int, int]) -> Tensor:
    """Put places (H, W, 2) into a larger grid of no places."""
    padded = places.new_full((*sides, 2), torch.nan)
    rows, columns = (slice(a, a + n) for a, n in zip(before, places.shape, strict=False))
    padded[rows, columns] = places
    return padded


def _cut(places: Tensor, sides: tuple[int, int]) -> Tensor:
    """Cut (H, W, 2) into rectangles (G, P, 2)."""
    return partition_windows2d(places[None], sides)[0]


def _find_swin(side: int, x: Tensor, *, mask: Tensor | None) -> AttentionGeometry:
    height, width = x.shape[1:3]
    places = _pad(
        grid_places(height, width), (0, 0), (height + -height % side, width + -width % side)
    )
    if mask is not None:
        places = places.roll((-(side // 2), -(side // 2)), (0, 1))
    windows = _cut(places, (side, side))
    return AttentionGeometry(queries=windows, keys=windows, groups_in="heads")


def _find_moa(block: LocalBlock, x: Tensor, *, mask: Tensor | None) -> AttentionGeometry:
    height, width = x.shape[1:3]
    sides = (min(block.window, height), min(block.window, width))
    padded = (height + -height % sides[0], width + -width % sides[1])
    windows = _cut(_pad(grid_places(height, width), (0, 0), padded), sides)
    groups_in: Literal["images", "heads"] = "images" if mask is None else "heads"
    return AttentionGeometry(queries=windows, keys=windows, groups_in=groups_in)


def _find_moa_windows(side: int, x: Tensor) -> AttentionGeometry:
    height, width = x.shape[1:3]
    padded = (height + -height % side, width + -width % side)
    # The middle of what a window has of the map.
    middles = _cut(_pad(grid_places(height, width), (0, 0), padded), (side, side)).nanmean(1)[None]
    return AttentionGeometry(queries=middles, keys=middles)


def _find_cmt(side: int, x: Tensor) -> AttentionGeometry:
    height, width = x.shape[2:]
    cells = grid_places(-(-height // side), -(-width // side), step=side, first=side / 2)
    return AttentionGeometry(
        queries=grid_places(height, width).flatten(0, 1)[None], keys=cells.flatten(0, 1)[None]
    )


def _find_cvt(grid: tuple[int, int], extra: int) -> AttentionGeometry:
    # Kernels of 3 with a padding of 1: the one of key j has its middle on place 2 j.
    halved = grid_places(-(-grid[0] // 2), -(-grid[1] // 2), step=2.0)
    return AttentionGeometry(
        queries=_with_tokens(grid_places(*grid), extra), keys=_with_tokens(halved, extra)
    )


def _find_tokens(grid: tuple[int, int], extra: int) -> AttentionGeometry:
    places = _with_tokens(grid_places(*grid), extra)
    return AttentionGeometry(queries=places, keys=places)


def _with_tokens(places: Tensor, extra: int) -> Tensor:
    flat = places.flatten(0, 1)
    return torch.cat([flat.new_full((extra, 2), torch.nan), flat])[None]


def _find_centered_windows(side: int, x: Tensor) -> AttentionGeometry:
    height, width = x.shape[1:3]
    if not side:
        whole = grid_places(height, width).flatten(0, 1)[None]
        return AttentionGeometry(queries=whole, keys=whole)
    down, across = -height % side, -width % side
    padded = _pad(
        grid_places(height, width), (down // 2, across // 2), (height + down, width + across)
    )
    windows = _cut(padded, (side, side))
    return AttentionGeometry(queries=windows, keys=windows, groups_in="images")


def _find_mobilevit(x: Tensor) -> AttentionGeometry:
    height, width = x.shape[2:]
    # Odd sides are stretched to even ones for the attention.
    even = (height + height % _EVEN, width + width % _EVEN)
    places = grid_places(*even) * torch.tensor([height / even[0], width / even[1]])
    sequences = unfold_patches(places.permute(2, 0, 1)[None])
    return AttentionGeometry(queries=sequences, keys=sequences, groups_in="images")

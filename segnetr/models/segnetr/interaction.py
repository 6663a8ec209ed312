"""Local and global interaction: attention weights inside windows and across displaced windows.

The paper partitions the map into windows, averages over the channels, applies an FFN and a softmax,
multiplies the windows by the result and merges them. The weights are the same for all channels, so
only the map of channel means has to be partitioned: merge(partition(x) * a) == x * merge(a). This
is exact (a test compares it with the literal form) and saves two copies of the map in each branch.

Source:
    Cheng et al., SegNetr, arXiv:2307.02953, section 2.1 and figure 1. Learned scalar weights of the
    two branches (from 1) and the batch norm after their sum are our reading of "finally fused by
    weighted summation" and "Norm": after a softmax, the branches are tiny next to the residual.
"""

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from segnetr.models.segnetr.mixing import NoMixing, PositionMixing, WindowMixing
from segnetr.models.segnetr.windows import (
    displace_windows,
    merge_windows,
    pad_to_multiple,
    partition_windows,
)

MixingKind = Literal["window", "position"]
InteractionKind = Literal["both", "local", "global", "none"]


class Interaction(Protocol):
    """A branch of the block: turns channel means into weights."""

    def attention_weights(self, means: Tensor) -> Tensor:
        """Return the weights (N, 1, H, W) of channel means (N, 1, H, W)."""
        ...


class LocalInteraction(nn.Module):
    """Weights inside (or, with window mixing, between) the windows of the map.

    (N, C, H, W) -> (N, C, H, W), any H and W: a map that is not a multiple of the window is
    padded with zeros, and the result is cropped.

    Args:
        window: Side of a window, P, in feature pixels.
        mixing: Along which axis the FFN works, see `segnetr.models.segnetr.mixing`.
        ratio: Hidden width of the FFN over its input width.
        size: Height and width of the maps that window mixing is built for, in feature pixels.
    """

    def __init__(
        self, window: int, *, mixing: MixingKind, ratio: float, size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.window = window
        self.mixing = build_mixing(window, mixing=mixing, ratio=ratio, size=size)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, C, H, W) multiplied by their attention weights."""
        return x * self.attention_weights(x.mean(1, keepdim=True))

    def attention_weights(self, means: Tensor) -> Tensor:
        """Return the weights (N, 1, H, W) of channel means (N, 1, H, W)."""
        height, width = means.shape[-2:]
        padded = pad_to_multiple(means, self.window)
        weights = window_attention_weights(padded, self.window, self.mixing)
        return weights[..., :height, :width]


class GlobalInteraction(nn.Module):
    """Weights in double windows of the displaced map.

    Like `LocalInteraction`, but windows of side P are displaced first and the map is then
    partitioned into windows of side 2P. The map is padded to a multiple of 2P, so that the number
    of displaced windows is even and the displacement is its own inverse.

    Args:
        window: Side of the windows that move, P, in feature pixels; attention windows have 2P.
        mixing: Along which axis the FFN works, see `segnetr.models.segnetr.mixing`.
        ratio: Hidden width of the FFN over its input width.
        size: Height and width of the maps that window mixing is built for, in feature pixels.
    """

    def __init__(
        self, window: int, *, mixing: MixingKind, ratio: float, size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.window = window
        self.mixing = build_mixing(2 * window, mixing=mixing, ratio=ratio, size=size)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, C, H, W) multiplied by their attention weights."""
        return x * self.attention_weights(x.mean(1, keepdim=True))

    def attention_weights(self, means: Tensor) -> Tensor:
        """Return the weights (N, 1, H, W) of channel means (N, 1, H, W)."""
        height, width = means.shape[-2:]
        moved = displace_windows(pad_to_multiple(means, 2 * self.window), self.window)
        weights = window_attention_weights(moved, 2 * self.window, self.mixing)
        return displace_windows(weights, self.window)[..., :height, :width]


class InteractionFusion(nn.Module):
    """The weighted sum of both branches, normalized; (N, C, H, W) -> (N, C, H, W).

    A single branch (table 3 of the paper) has no scalar weight, because the norm would cancel it.

    Args:
        channels: Width, C.
        window: Side of the local windows, P, in feature pixels.
        mixing: Along which axis the FFN works, see `segnetr.models.segnetr.mixing`.
        ratio: Hidden width of the FFN over its input width.
        size: Height and width of the maps that window mixing is built for, in feature pixels.
        kind: Branches of the block: "both", "local" or "global".
    """

    def __init__(
        self,
        channels: int,
        window: int,
        *,
        mixing: MixingKind,
        ratio: float,
        size: tuple[int, int],
        kind: InteractionKind = "both",
    ) -> None:
        super().__init__()
        self.local = (
            LocalInteraction(window, mixing=mixing, ratio=ratio, size=size)
            if kind in ("both", "local")
            else None
        )
        self.global_ = (
            GlobalInteraction(window, mixing=mixing, ratio=ratio, size=size)
            if kind in ("both", "global")
            else None
        )
        if kind == "both":
            self.local_weight = nn.Parameter(torch.ones(()))
            self.global_weight = nn.Parameter(torch.ones(()))
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (N, C, H, W) weighted by both branches and normalized."""
        fused: Tensor = self.norm(x * self.attention_weights(x.mean(1, keepdim=True)))
        return fused

    def attention_weights(self, means: Tensor) -> Tensor:
        """Return the weighted sum (N, 1, H, W) of both branches' weights."""
        if self.local is None or self.global_ is None:
            branch: Interaction | None = self.local or self.global_
            assert branch is not None
            return branch.attention_weights(means)
        return self.local_weight * self.local.attention_weights(means) + self.global_weight * (
            self.global_.attention_weights(means)
        )


def build_mixing(
    window: int, *, mixing: MixingKind, ratio: float, size: tuple[int, int]
) -> nn.Module:
    """Build the FFN for one window size; `NoMixing` if the softmax would have a single entry."""
    if mixing == "position":
        return PositionMixing(window * window, ratio=ratio) if window > 1 else NoMixing()
    grid = (-(-size[0] // window), -(-size[1] // window))
    return WindowMixing(grid, ratio=ratio) if grid != (1, 1) else NoMixing()


def window_attention_weights(means: Tensor, window: int, mixing: nn.Module) -> Tensor:
    """Partition channel means (N, 1, H, W), mix, and merge the weights (N, 1, H, W)."""
    grid = (means.shape[-2] // window, means.shape[-1] // window)
    weights = mixing(partition_windows(means, window).squeeze(-1), grid)
    return merge_windows(weights.unsqueeze(-1), grid, window)

"""Layers along the channels of a map."""

from torch import Tensor, nn

from hybrid_backbones.kernels.dispatch import pointwise_conv

__all__ = ["normalize_channels", "pointwise_conv"]


def normalize_channels(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply a layer norm to the channels of every pixel; (N, C, H, W) -> (N, C, H, W)."""
    normed: Tensor = norm(x.permute(0, 2, 3, 1))
    return normed.permute(0, 3, 1, 2)

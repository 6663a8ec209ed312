"""Convolution and batch norm, the pair that can be folded into one for inference."""

from torch import Tensor, nn

from hybrid_backbones.kernels.activation import Activation
from hybrid_backbones.kernels.dispatch import (
    conv2d,
    conv_norm,
    is_pointwise,
    recomputes_activations,
)


class ConvNorm(nn.Module):
    """Padded convolution without bias, batch norm, and an optional activation; odd kernels."""

    norms_behind = (("conv", "bn"),)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Activation | None = None,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, ceil(H/stride), ceil(W/stride))."""
        return conv_norm(x, self.conv, norm=self.bn, activation=self.activation)


def apply_in_order(x: Tensor, *layers: ConvNorm) -> Tensor:
    """Apply convolutions with norms in order; the same as calling them one after the other.

    In training, an activation in front of a 1x1 convolution is computed again in the backward pass,
    so that the map is kept once and not twice.
    """
    if not recomputes_activations():
        for layer in layers:
            x = layer(x)
        return x
    pending: Activation | None = None
    for layer, following in zip(layers, (*layers[1:], None), strict=True):
        x = layer.bn(conv2d(layer.conv, x, ahead=pending))
        pending = layer.activation
        if pending is not None and (following is None or not is_pointwise(following.conv)):
            x, pending = pending(x), None
    return x

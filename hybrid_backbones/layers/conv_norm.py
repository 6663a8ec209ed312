"""Convolution and batch norm, the pair that can be folded into one for inference."""

from torch import Tensor, nn

from hybrid_backbones.kernels.activation import Activation
from hybrid_backbones.kernels.inference import convolve, is_plain_inference
from hybrid_backbones.kernels.linear import apply_convolution


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm, activation where given; odd kernels, padded."""

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
        if not self.training and is_plain_inference(x):
            return convolve(x, self.conv, norm=self.bn, activation=self.activation)
        y: Tensor = self.bn(apply_convolution(self.conv, x))
        return y if self.activation is None else self.activation(y)

    def before_activation(self, x: Tensor) -> Tensor:
        """Give what the activation is applied to."""
        y: Tensor = self.bn(apply_convolution(self.conv, x))
        return y

    def after_activation(self, x: Tensor, activation: Activation) -> Tensor:
        """Map as `forward` does, after an activation that the backward pass computes again."""
        y: Tensor = self.bn(apply_convolution(self.conv, x, ahead=activation))
        return y if self.activation is None else self.activation(y)

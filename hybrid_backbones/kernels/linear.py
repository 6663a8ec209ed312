"""A linear layer and a convolution that run through the kernels."""

from torch import Tensor, nn

from hybrid_backbones.kernels import dispatch
from hybrid_backbones.kernels.activation import Activation


class Linear(nn.Linear):
    """`torch.nn.Linear`, which runs through oneDNN in float32 on a CPU."""

    def forward(self, x: Tensor, activation: Activation | None = None) -> Tensor:
        """Map (..., C) to (..., D); `activation`, of slope 1, is applied to the result."""
        return dispatch.linear(x, self.weight, self.bias, activation)


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution, which runs as oneDNN's matrix product in float32 on a CPU."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, H, W)."""
        result = dispatch.try_product(self, x)
        return super().forward(x) if result is None else result

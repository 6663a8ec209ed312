"""Convolution and batch norm, the pair that can be folded into one for inference."""

from typing import Protocol

import torch
from torch import Tensor, nn


class Activation(Protocol):
    """A function as `torch.nn.functional` has them."""

    def __call__(self, x: Tensor, /, *, inplace: bool) -> Tensor:
        """Apply to x (...)."""


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
        y: Tensor = self.bn(self.conv(x))
        if self.activation is None:
            return y
        # In place only where no gradient needs the input: autograd would copy it first.
        return self.activation(y, inplace=not torch.is_grad_enabled())

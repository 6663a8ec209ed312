"""The two-layer perceptron of transformer blocks."""

import torch
from torch import Tensor, nn

from hybrid_backbones.kernels.activation import GELU, Activation
from hybrid_backbones.kernels.inference import is_plain_inference, multiply
from hybrid_backbones.kernels.linear import Linear, apply_activated


class Mlp(nn.Module):
    """Linear, activation, Linear over the last axis."""

    def __init__(self, width: int, hidden: int, *, activation: Activation = GELU) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.activation = activation
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., width)."""
        slope = self.activation.slope
        if slope != 1 and is_plain_inference(x):
            # The slope goes into the matrices, which are smaller than the maps.
            one, two = self.fc1, self.fc2
            hidden = multiply(x, one.weight * slope, one.bias * slope, activation=self.activation)
            return multiply(hidden, two.weight / slope, two.bias)
        if torch.is_grad_enabled():
            return apply_activated(self.fc2, self.fc1(x), self.activation)
        output: Tensor = self.fc2(self.fc1(x, self.activation))
        return output

"""The two-layer MLP of transformer blocks."""

from torch import Tensor, nn

from hybrid_backbones.kernels.activation import GELU, Activation
from hybrid_backbones.kernels.dispatch import mlp
from hybrid_backbones.kernels.linear import Linear


class Mlp(nn.Module):
    """Linear, activation, Linear over the last axis."""

    def __init__(self, width: int, hidden: int, *, activation: Activation = GELU) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.activation = activation
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., width)."""
        return mlp(x, self.fc1, self.activation, self.fc2)

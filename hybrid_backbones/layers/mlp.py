"""The two-layer perceptron of transformer blocks."""

from collections.abc import Callable

from torch import Tensor, nn


class Mlp(nn.Module):
    """Linear, activation, Linear over the last axis."""

    def __init__(
        self, width: int, hidden: int, *, activation: Callable[[], nn.Module] = nn.GELU
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.activation = activation()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to (..., width)."""
        output: Tensor = self.fc2(self.activation(self.fc1(x)))
        return output

"""Squeeze-and-excitation: a gate between 0 and 1 for each channel of an image.

Source:
    Hu et al., Squeeze-and-Excitation Networks, arXiv:1709.01507, section 3.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Two layers between the channel means and the gates.

    Args:
        channels: Channels of the map, E.
        hidden: Width between the two layers.

    Source:
        arXiv:1709.01507, section 3. Returns the gates rather than the gated map, because the
        caller can multiply them into the next convolution's weights.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, hidden)
        self.expand = nn.Linear(hidden, channels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute gates (N, E) between 0 and 1 from channel means (N, E)."""
        return compute_gates(pooled, self.weights)

    @property
    def weights(self) -> list[Tensor]:
        """Weight and bias of the first layer, weight and bias of the second."""
        return [self.reduce.weight, self.reduce.bias, self.expand.weight, self.expand.bias]


def compute_gates(pooled: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Compute gates (..., E) from channel means (..., E). Without weights, all gates are 1."""
    if not weights:
        return torch.ones_like(pooled)
    reduce, reduce_bias, expand, expand_bias = weights
    hidden = F.silu(F.linear(pooled, reduce, reduce_bias))
    return F.linear(hidden, expand, expand_bias).sigmoid()


def compute_gate_gradients(
    pooled: Tensor, weights: Sequence[Tensor], gradient: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Compute the gradients of `compute_gates` for one image.

    Written by hand, because autograd does not record inside a custom operator.

    Args:
        pooled: Channel means (E,).
        weights: As in `compute_gates`.
        gradient: Gradient of the gates (E,).

    Returns:
        The gates (E,), the gradient of the channel means (E,), and those of the weights.
    """
    if not weights:
        return torch.ones_like(pooled), torch.zeros_like(pooled), []
    reduce, reduce_bias, expand, expand_bias = weights
    before = F.linear(pooled, reduce, reduce_bias)
    hidden = F.silu(before)
    gates = F.linear(hidden, expand, expand_bias).sigmoid()
    at_second = gradient * gates * (1 - gates)
    at_first = torch.ops.aten.silu_backward(at_second @ expand, before)
    of_weights = [
        torch.outer(at_first, pooled),
        at_first,
        torch.outer(at_second, hidden),
        at_second,
    ]
    return gates, at_first @ reduce, of_weights

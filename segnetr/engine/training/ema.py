"""Exponential moving average (EMA) of the weights of a network."""

import copy

import torch
from torch import Tensor, nn


class ModelEMA:
    """A copy of a network with the exponential moving average of its weights.

    The decay rises with the number of updates t, min(decay, (1 + t) / (10 + t)), so that the
    random initial weights are forgotten quickly. Buffers, for example batch-norm statistics, are
    copied without averaging.

    Attributes:
        model: The copy, in evaluation mode, without gradients.
        decay: The highest decay, 0 to 1.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, *, updates: int) -> None:
        """Update the average with the current weights.

        Args:
            model: The trained network, of the same architecture.
            updates: Number of updates before this one, t.
        """
        decay = min(self.decay, (1 + updates) / (10 + updates))
        averages: list[Tensor] = list(self.model.parameters())
        weights: list[Tensor] = [weight.detach() for weight in model.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(buffer)

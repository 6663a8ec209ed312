"""The moving average of a network's weights."""

import copy

import torch
from torch import Tensor, nn


class ModelEMA:
    """A copy of a network whose weights follow those of the trained one slowly.

    The decay rises with the updates, min(decay, (1 + t) / (10 + t)), so that the first average is
    not the random start. Buffers, as the statistics of batch norms, are copied as they are.

    Attributes:
        model: The copy, in evaluation mode, without gradients.
        decay: The highest decay, 0 to 1.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, *, updates: int) -> None:
        """Move towards the network.

        Args:
            model: The trained network, of the same architecture.
            updates: Updates before this one, t.
        """
        decay = min(self.decay, (1 + updates) / (10 + updates))
        averages: list[Tensor] = list(self.model.parameters())
        weights: list[Tensor] = [weight.detach() for weight in model.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - decay)
        for kept, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            kept.copy_(buffer)

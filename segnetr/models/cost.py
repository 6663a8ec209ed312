"""Count the parameters and multiply-adds of a network."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of convolutions and matrix products in one forward pass.

    A copy on the meta device propagates shapes only, so nothing is computed. Norms, activations and
    other element-wise operations are not counted.

    Args:
        model: The network. It is not changed.
        input_shape: Shape of the images, (N, C, H, W).
    """
    empty = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        empty(torch.empty(input_shape, device="meta"))
    return int(counter.get_total_flops()) // 2

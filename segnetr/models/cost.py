"""What a network costs: parameters and multiply-adds."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Count the values that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Count the multiply-adds of convolutions and matrix products in one forward pass.

    Nothing is computed: a copy without values passes shapes through. Norms, activations and other
    element-wise work are not counted.

    Args:
        model: The network; left as it is.
        input_shape: Shape of the images, (N, C, H, W).
    """
    empty = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        empty(torch.empty(input_shape, device="meta"))
    return int(counter.get_total_flops()) // 2

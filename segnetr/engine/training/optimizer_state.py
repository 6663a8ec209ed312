"""An optimizer's state as named tensors, and back."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def name_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Give every tensor of the state as `KEY.PARAMETER`, with the parameter's name in the network.

    Learning rates are no state here: they are a function of the step.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{key}.{names[id(parameter)]}": value
        for parameter, entry in optimizer.state.items()
        for key, value in entry.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Put named tensors into an optimizer that is built like the one they came from.

    Raises:
        KeyError: If a tensor belongs to no parameter of the network.
    """
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for full_name, tensor in tensors.items():
        key, _, name = full_name.partition(".")
        parameter = parameters[name]
        optimizer.state[parameter][key] = tensor if key == "step" else _like(parameter, tensor)


def _like(parameter: nn.Parameter, tensor: Tensor) -> Tensor:
    """Copy to the parameter's device and memory layout; in another, kernels round otherwise."""
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)

"""Training an encoder that knows something already: slower, layer by layer, or later.

All of it is a function of the step, so that a resumed run is the unbroken one.
"""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderTraining:
    """How the encoder of a network is trained, where that differs from the rest.

    Attributes:
        module: The encoder, a part of the network.
        lr_factor: Its learning rate over that of the rest.
        layer_decay: Factor from each layer of it to the one below; 1: none.
        frozen_epochs: It stays as it is for so many passes over the training cases: no gradient,
            statistics of norms unchanged, dropout off.
    """

    module: nn.Module
    lr_factor: float = 1.0
    layer_decay: float = 1.0
    frozen_epochs: int = 0

    def scales(self) -> dict[int, float]:
        """Give the learning rate of each of its parameters, by id, over that of the rest.

        The last layer has `lr_factor * layer_decay`, the one below once more the decay.

        Source:
            Bao et al., BEiT, arXiv:2106.08254, section 3.2.
        """
        depths = number_layers(self.module)
        top = max(depths.values(), default=0)
        return {
            key: self.lr_factor * self.layer_decay ** (top + 1 - depth)
            for key, depth in depths.items()
        }


def number_layers(module: nn.Module) -> dict[int, int]:
    """Number the layers of a network from its input: id of each parameter to its layer.

    A layer is an entry of the innermost list of modules that a parameter stands in, as the blocks
    of a stage; lists are met in the order of definition. What stands in none belongs to the layer
    before it, at the beginning to layer 0.
    """
    lists = {name for name, part in module.named_modules() if isinstance(part, nn.ModuleList)}
    order: dict[str, int] = {}
    depths: dict[int, int] = {}
    current = 0
    for name, parameter in module.named_parameters():
        parts = name.split(".")
        inside = [i for i in range(len(parts)) if ".".join(parts[:i]) in lists]
        if inside:
            layer = ".".join(parts[: inside[-1] + 1])
            current = order.setdefault(layer, len(order) + 1)
        depths[id(parameter)] = current
    return depths


def scale_learning_rates(optimizer: torch.optim.Optimizer, training: EncoderTraining) -> None:
    """Give the encoder's parameters groups of their own, with the factor "factor".

    Args:
        optimizer: As built, without any state.
        training: Whose parameters, and how much slower they are.
    """
    scales = training.scales()
    for group in list(optimizer.param_groups):
        apart: dict[float, list[nn.Parameter]] = {}
        kept = []
        for parameter in group["params"]:
            scale = scales.get(id(parameter), 1.0)
            if scale == 1.0:
                kept.append(parameter)
            else:
                apart.setdefault(scale, []).append(parameter)
        group["params"] = kept
        settings = {key: value for key, value in group.items() if key != "params"}
        for scale, parameters in apart.items():
            whole = scale * settings.get("factor", 1.0)
            optimizer.add_param_group({**settings, "params": parameters, "factor": whole})
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]


class EncoderFreeze:
    """Holds an encoder still in the first steps of a training.

    Args:
        module: The encoder, its parameters as they are when it is trained.
        steps: It stays as it is before this step.
        without_gradient: Take it out of the backward pass meanwhile. Not under a wrapper that
            averages gradients over processes, which waits for all of them: they are dropped there.
    """

    def __init__(self, module: nn.Module, *, steps: int, without_gradient: bool) -> None:
        self._module, self._steps, self._without_gradient = module, steps, without_gradient
        # Some backbones have fixed parameters (ViTAE's random features), which stay fixed.
        self._parameters = [p for p in module.parameters() if p.requires_grad]

    def before_passes(self, step: int) -> None:
        """Freeze or free the encoder of a network that was just put into training mode."""
        if not self._steps:
            return
        frozen = step < self._steps
        self._module.train(not frozen)
        if self._without_gradient:
            for parameter in self._parameters:
                parameter.requires_grad_(not frozen)

    def after_passes(self, step: int) -> None:
        """Forget the gradients that were averaged all the same."""
        if step < self._steps:
            for parameter in self._parameters:
                parameter.grad = None

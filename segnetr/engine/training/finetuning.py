"""Training an encoder that knows something already: slower, layer by layer, or later.

All of it is a function of the step, so that a resumed run is the unbroken one.
"""

from dataclasses import dataclass

from torch import nn

from hybrid_backbones import Backbone
from segnetr.engine.training.optim import layer_factors


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFinetuning:
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

    def factors(self, model: nn.Module) -> dict[str, float]:
        """Give the learning rate of each of its parameters over that of the rest.

        The last layer has `lr_factor * layer_decay`, the one below once more the decay.

        Args:
            model: The network that the encoder is a part of.

        Returns:
            Factors by the parameter's name in `model`; those that are 1 are left out.

        Source:
            Bao et al., BEiT, arXiv:2106.08254, section 3.2.
        """
        if isinstance(self.module, Backbone):
            return layer_factors(model, decay=self.layer_decay, encoder=self.lr_factor)
        depths = number_layers(self.module)
        top = max(depths.values(), default=0)
        found = {
            name: self.lr_factor * self.layer_decay ** (top + 1 - depths[id(parameter)])
            for name, parameter in model.named_parameters()
            if id(parameter) in depths
        }
        return {name: factor for name, factor in found.items() if factor != 1.0}


def number_layers(module: nn.Module) -> dict[int, int]:
    """Number the layers of any other encoder from its input: id of each parameter to its layer.

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

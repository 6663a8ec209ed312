"""Fine-tuning of a pretrained encoder: lower learning rate, layer-wise decay, freezing.

Everything is a function of the step, so that a resumed run equals an uninterrupted one.
"""

from dataclasses import dataclass

from torch import nn

from hybrid_backbones import Backbone
from segnetr.engine.training.optim import layer_factors


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFinetuning:
    """How the encoder of a network is trained, if that differs from the rest.

    Attributes:
        module: The encoder, a submodule of the network.
        lr_factor: Learning rate of the encoder divided by that of the rest.
        layer_decay: Factor on the learning rate from each layer to the layer before it; 1: none.
        frozen_epochs: Number of initial epochs in which the encoder is frozen: no gradient, fixed
            norm statistics, no dropout.
    """

    module: nn.Module
    lr_factor: float = 1.0
    layer_decay: float = 1.0
    frozen_epochs: int = 0

    def factors(self, model: nn.Module) -> dict[str, float]:
        """Return the learning-rate factor of each parameter of the encoder.

        The last layer has `lr_factor * layer_decay`, the layer before it
        `lr_factor * layer_decay**2`, and so on.

        Args:
            model: The network that contains the encoder.

        Returns:
            Factors by parameter name in `model`, without those that are 1.

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
    """Return the layer number of each parameter of an encoder, counted from its input.

    A layer is an entry of the innermost `ModuleList` that contains the parameter, for example a
    block of a stage, in the order of definition. A parameter outside of lists belongs to the layer
    before it, or to layer 0 at the beginning.

    Returns:
        From the `id` of a parameter to the number of its layer.
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
    """Freezes an encoder in the first steps of a training.

    Args:
        module: The encoder, with `requires_grad` as it is when the encoder is trained.
        steps: Number of steps in which it is frozen.
        without_gradient: Exclude the frozen encoder from the backward pass. With several processes
            this is not possible, because averaging waits for all gradients; they are computed and
            dropped.
    """

    def __init__(self, module: nn.Module, *, steps: int, without_gradient: bool) -> None:
        self._module, self._steps, self._without_gradient = module, steps, without_gradient
        # Some backbones have parameters that are never trained (ViTAE's random features).
        self._parameters = [p for p in module.parameters() if p.requires_grad]

    def before_passes(self, step: int) -> None:
        """Freeze or unfreeze the encoder of a network that is in training mode."""
        if not self._steps:
            return
        frozen = step < self._steps
        self._module.train(not frozen)
        if self._without_gradient:
            for parameter in self._parameters:
                parameter.requires_grad_(not frozen)

    def after_passes(self, step: int) -> None:
        """Drop the gradients of the frozen encoder."""
        if step < self._steps:
            for parameter in self._parameters:
                parameter.grad = None

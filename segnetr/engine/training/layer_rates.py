"""Learning rates that fall from the head of a backbone down to its first layer.

Bao et al., BEiT: BERT Pre-Training of Image Transformers, ICLR 2022, arXiv:2106.08254, section 3.2.
"""

from torch import nn

from hybrid_backbones import Backbone, list_layers


def layer_factors(
    model: nn.Module, *, decay: float = 1.0, encoder: float = 1.0
) -> dict[str, float]:
    """Give what the learning rate of each parameter of a backbone is multiplied by.

    The head of a backbone, and everything outside of backbones (the decoder of a segmentation
    network), keeps the full rate. The last block has `encoder * decay`, the one before it
    `encoder * decay**2`, and so on.

    Args:
        model: A network that is or contains a backbone.
        decay: Rate of a layer over that of the layer behind it.
        encoder: Factor for all layers but the head, for an encoder that was trained before.

    Returns:
        Factors by the parameter's name in `model`; those that are 1 are left out.
    """
    factors: dict[str, float] = {}
    for prefix, module in model.named_modules():
        if not isinstance(module, Backbone):
            continue
        *layers, _ = list_layers(module)
        for distance, names in enumerate(reversed(layers), start=1):
            factor = encoder * decay**distance
            if factor != 1.0:
                factors.update({f"{prefix}.{name}" if prefix else name: factor for name in names})
    return factors

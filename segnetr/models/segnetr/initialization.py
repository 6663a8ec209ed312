"""Weight initialization."""

from torch import nn


def initialize(model: nn.Module) -> None:
    """Initialize convolutions, linear layers and biases in place.

    Convolutions: He normal, standard deviation sqrt(2 / fan-in). Linear layers: truncated normal,
    standard deviation 0.02, truncated at +-2 (the default of `trunc_normal_`). Biases: 0. Norms
    keep weight 1 and bias 0.

    Source:
        He et al., Delving Deep into Rectifiers, arXiv:1502.01852, equation 10, for convolutions;
        Liu et al., Swin Transformer, arXiv:2103.14030, for linear layers. The SegNetr paper does
        not state its initialization.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)

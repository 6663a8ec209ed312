"""The values a network starts from."""

from torch import nn


def initialize(model: nn.Module) -> None:
    """Draw kernels for rectifiers and start linear maps small.

    Convolutions are drawn with the deviation sqrt(2 / fan-in), linear maps from a normal
    distribution of deviation 0.02 cut at two deviations, biases are zero; norms stay at one and
    zero.

    Source:
        He et al., Delving Deep into Rectifiers, arXiv:1502.01852, equation 10, for convolutions;
        Liu et al., Swin Transformer, arXiv:2103.14030, for linear maps. The SegNetr paper does
        not say.
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

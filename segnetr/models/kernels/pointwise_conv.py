"""A linear map along the channels of a map."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.kernels.compiled_product import product, takes_products
from segnetr.models.kernels.conv import can_fuse, convolve


def pointwise_conv(layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a linear layer, or a 1x1 convolution, to every pixel.

    Always as a convolution of oneDNN, because matrix products are run by a library that is two to
    four times slower on some processors: without a gradient through its operator, which a single
    thread reaches too; compiled through an operator that the compiler cannot look into, which
    would make a matrix product of it; else as PyTorch chooses.

    Args:
        layer: From C to K values.
        x: Maps (N, C, H, W).

    Returns:
        Maps (N, K, H, W).
    """
    weight = layer.weight.flatten(1)
    if takes_products(x, weight):
        maps: Tensor = product(x.contiguous(memory_format=torch.channels_last), weight, layer.bias)
        return maps
    kernel = weight[:, :, None, None]
    if can_fuse(x) and not torch.is_grad_enabled():
        return convolve(x, kernel, layer.bias)
    return F.conv2d(x, kernel, layer.bias)


def normalize_channels(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply a layer norm to the channels of every pixel; (N, C, H, W) -> (N, C, H, W)."""
    normed: Tensor = norm(x.permute(0, 2, 3, 1))
    return normed.permute(0, 3, 1, 2)

"""A linear map along the channels of a map."""

import torch.nn.functional as F
from torch import Tensor, nn


def apply_along_channels(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer to every pixel.

    As a 1x1 convolution, because on processors convolutions are run by oneDNN and matrix products
    by a library that is two to four times slower on some of them.

    Args:
        layer: From C to K values.
        x: Maps (N, C, H, W).

    Returns:
        Maps (N, K, H, W).
    """
    return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)


def normalise_channels(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply a layer norm to the channels of every pixel; (N, C, H, W) -> (N, C, H, W)."""
    normed: Tensor = norm(x.permute(0, 2, 3, 1))
    return normed.permute(0, 3, 1, 2)

"""A convolution with its activation in one pass over memory, where the processor's library can.

oneDNN applies SiLU to the values of a convolution before they leave the registers. PyTorch reaches
that through an operator of its own compiler; elsewhere (GPU, other processors, other precisions,
while a graph is traced) the two steps run one after the other, with the same result.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def convolve_silu(x: Tensor, weight: Tensor, bias: Tensor | None, *, groups: int = 1) -> Tensor:
    """Convolve with stride 1 and padding that keeps the size, then apply SiLU. Not differentiable.

    Args:
        x: Maps (N, C, H, W).
        weight: Kernel (K, C/groups, S, S), S odd.
        bias: (K,), or None.
        groups: Groups of channels; C makes the convolution depth-wise.

    Returns:
        Maps (N, K, H, W).
    """
    padding = weight.shape[-1] // 2
    if can_fuse(x):
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, [padding] * 2, [1, 1], [1, 1], groups, "swish", [], ""
        )
        return fused
    return F.silu(F.conv2d(x, weight, bias, padding=padding, groups=groups), inplace=True)


def can_fuse(x: Tensor) -> bool:
    """Say whether the one-pass operator exists and takes maps like `x`."""
    if torch.compiler.is_compiling():  # first: a tracer may not even ask for the library
        return False
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )

"""Convolutions that keep the size, run by oneDNN where the processor has it, SiLU included.

oneDNN applies SiLU to the values of a convolution before they leave the registers. PyTorch reaches
that through an operator made for its compiler, which also spares 1x1 convolutions the slower path
that PyTorch takes with a single thread. Elsewhere (GPU, other processors, other precisions, while a
network is exported) the usual operators give the same result.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Asked once, because a compiler that traces `can_fuse` cannot ask.
_HAS_OPERATOR = torch.backends.mkldnn.is_available() and hasattr(
    torch.ops.mkldnn, "_convolution_pointwise"
)


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
    if can_fuse(x):
        return _run(x, weight, bias, groups, "swish")
    return F.silu(convolve(x, weight, bias, groups=groups), inplace=True)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, groups: int = 1) -> Tensor:
    """Convolve with stride 1 and padding that keeps the size. Not differentiable.

    Args:
        x: Maps (N, C, H, W).
        weight: Kernel (K, C/groups, S, S), S odd.
        bias: (K,), or None.
        groups: Groups of channels; C makes the convolution depth-wise.

    Returns:
        Maps (N, K, H, W).
    """
    if can_fuse(x):
        return _run(x, weight, bias, groups, "none")
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=groups)


def can_fuse(x: Tensor) -> bool:
    """Say whether the one-pass operator exists and takes maps like `x`."""
    return (
        _HAS_OPERATOR
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()
    )


def _run(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, activation: str) -> Tensor:
    padding = [weight.shape[-1] // 2] * 2
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, [1, 1], [1, 1], groups, activation, [], ""
    )
    return result

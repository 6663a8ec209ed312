"""MBConv for prediction on a processor: norms folded, in pieces that stay in its cache.

The three batch norms become part of the convolutions, SiLU part of the convolutions' passes, and
the wide maps exist for a few images, or for one image and some of its channels, at a time. With
one image the gates are multiplied into the projection's kernel instead of the map.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from segnetr.models.kernels.conv import convolve, convolve_silu
from segnetr.models.kernels.squeeze_excitation import compute_gates

# See `mbconv_train_cpu`: below what the allocator gives back to the system after each use.
_PIECE_BYTES = 14 * 2**20


class FoldedKernels(NamedTuple):
    """Kernels and biases of the three convolutions with their norms folded in."""

    expand: Tensor  # (E, D, 1, 1)
    expand_bias: Tensor  # (E,)
    depthwise: Tensor  # (E, 1, 3, 3)
    depthwise_bias: Tensor  # (E,)
    project: Tensor  # (D, E, 1, 1)
    project_bias: Tensor  # (D,)


def fold_norm(convolution: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Fold the running moments of a batch norm into the convolution before it.

    Args:
        convolution: It.
        norm: The batch norm behind it, or an identity where it is folded already.

    Returns:
        The kernel and the bias (K,).
    """
    weight, bias = convolution.weight, convolution.bias
    if bias is None:
        bias = weight.new_zeros(weight.shape[0])
    if not isinstance(norm, nn.BatchNorm2d):
        return weight, bias
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return weight * scale[:, None, None, None], (bias - norm.running_mean) * scale + norm.bias


def mbconv_infer_cpu(x: Tensor, kernels: FoldedKernels, squeeze: list[Tensor]) -> Tensor:
    """Apply MBConv with its residual; not differentiable.

    Args:
        x: Maps (N, D, H, W).
        kernels: See `FoldedKernels`.
        squeeze: Weights of `compute_gates`; empty: no gates.

    Returns:
        Maps (N, D, H, W).
    """
    x = x.contiguous(memory_format=torch.channels_last)
    result: Tensor = _folded_mbconv(x, *kernels, squeeze)
    return result


# An operator, so that a compiler takes it as it is: left to itself it makes plain passes of it.
@torch.library.custom_op("segnetr::mbconv_infer_cpu", mutates_args=())
def _folded_mbconv(
    x: Tensor,
    expand: Tensor,
    expand_bias: Tensor,
    depthwise: Tensor,
    depthwise_bias: Tensor,
    project: Tensor,
    project_bias: Tensor,
    squeeze: list[Tensor],
) -> Tensor:
    kernels = FoldedKernels(expand, expand_bias, depthwise, depthwise_bias, project, project_bias)
    channels = kernels.expand.shape[0]
    plane = x.shape[-2] * x.shape[-1] * x.element_size()
    images = max(1, _PIECE_BYTES // (plane * channels))
    step = channels if images > 1 else min(channels, max(16, _PIECE_BYTES // plane // 16 * 16))
    result = torch.empty_like(x)
    for some, out in zip(x.split(images), result.split(images), strict=True):
        pieces = [slice(start, start + step) for start in range(0, channels, step)]
        _apply(some, out, kernels, squeeze, pieces)
    return result


@_folded_mbconv.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


def _apply(
    x: Tensor, out: Tensor, kernels: FoldedKernels, squeeze: list[Tensor], pieces: list[slice]
) -> None:
    hidden = [_widen(x, kernels, at) for at in pieces]
    project = kernels.project
    if squeeze:
        gates = compute_gates(torch.cat([piece.mean((2, 3)) for piece in hidden], 1), squeeze)
        if len(x) == 1:
            project = project * gates[:, :, None, None]
        else:
            for at, piece in zip(pieces, hidden, strict=True):
                piece.mul_(gates[:, at, None, None])
    torch.add(x, kernels.project_bias[:, None, None], out=out)
    for at, piece in zip(pieces, hidden, strict=True):
        out.add_(convolve(piece, project[:, at]))


def _widen(x: Tensor, kernels: FoldedKernels, at: slice) -> Tensor:
    """Expand to some of the wide channels and convolve each of them by itself."""
    first = convolve_silu(x, kernels.expand[at], kernels.expand_bias[at])
    kernel, bias = kernels.depthwise[at], kernels.depthwise_bias[at]
    return convolve_silu(first, kernel, bias, groups=first.shape[1])

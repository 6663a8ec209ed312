"""Cache-blocked CPU inference kernel for MBConv, with folded batch norms.

The three batch norms are folded into the convolutions, SiLU is applied in the convolutions' passes,
and the expanded maps are computed in tiles: a few images, or some channels of one image, at a time.
For one image, the gates are multiplied into the projection's kernel instead of the map.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hybrid_backbones.kernels.activation import SILU
from hybrid_backbones.kernels.dispatch import conv2d_same
from hybrid_backbones.kernels.switch import settings
from segnetr.models.kernels.squeeze_excitation import compute_gates

_NAME = "segnetr::mbconv_infer_cpu"


class FoldedKernels(NamedTuple):
    """Kernels and biases of the three convolutions with folded norms."""

    expand: Tensor  # (E, D, 1, 1)
    expand_bias: Tensor  # (E,)
    depthwise: Tensor  # (E, 1, 3, 3)
    depthwise_bias: Tensor  # (E,)
    project: Tensor  # (D, E, 1, 1)
    project_bias: Tensor  # (D,)


def mbconv_infer_cpu(x: Tensor, kernels: FoldedKernels, squeeze: list[Tensor]) -> Tensor:
    """Apply MBConv with its residual, without gradient.

    Args:
        x: Maps (N, D, H, W).
        kernels: See `FoldedKernels`.
        squeeze: Weights of `compute_gates`; an empty list for no gates.

    Returns:
        Maps (N, D, H, W).
    """
    x = x.contiguous(memory_format=torch.channels_last)
    if torch.compiler.is_compiling():
        result: Tensor = _mbconv_infer_cpu(x, *kernels, squeeze)
        return result
    # The first call of a custom operator imports the compiler, which takes seconds.
    with torch.autograd.profiler.record_function(_NAME):
        return _run_kernel(x, *kernels, squeeze)


def _run_kernel(
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
    limit = settings.tile_bytes
    images = max(1, limit // (plane * channels))
    step = channels if images > 1 else min(channels, max(16, limit // plane // 16 * 16))
    tiles = [slice(start, start + step) for start in range(0, channels, step)]
    result = torch.empty_like(x)
    for batch, out in zip(x.split(images), result.split(images), strict=True):
        _apply(batch, out, kernels, squeeze, tiles)
    return result


# An opaque operator: a compiler would replace the calls by plain passes over the maps.
_mbconv_infer_cpu = torch.library.custom_op(_NAME, mutates_args=())(_run_kernel)


@_mbconv_infer_cpu.register_fake
def _(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x)


def _apply(
    x: Tensor, out: Tensor, kernels: FoldedKernels, squeeze: list[Tensor], tiles: list[slice]
) -> None:
    hidden = [_expand(x, kernels, channels) for channels in tiles]
    project = kernels.project
    if squeeze:
        gates = compute_gates(torch.cat([tile.mean((2, 3)) for tile in hidden], 1), squeeze)
        if len(x) == 1:
            project = project * gates[:, :, None, None]
        else:
            for channels, tile in zip(tiles, hidden, strict=True):
                tile.mul_(gates[:, channels, None, None])
    torch.add(x, kernels.project_bias[:, None, None], out=out)
    for channels, tile in zip(tiles, hidden, strict=True):
        out.add_(conv2d_same(tile, project[:, channels]))


def _expand(x: Tensor, kernels: FoldedKernels, channels: slice) -> Tensor:
    """Compute some of the expanded channels, up to the second activation."""
    first = conv2d_same(x, kernels.expand[channels], kernels.expand_bias[channels], activation=SILU)
    kernel, bias = kernels.depthwise[channels], kernels.depthwise_bias[channels]
    return conv2d_same(first, kernel, bias, groups=first.shape[1], activation=SILU)

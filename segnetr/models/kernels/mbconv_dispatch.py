"""The choice between the plain modules of MBConv and its two CPU kernels."""

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from hybrid_backbones.kernels import onednn
from hybrid_backbones.kernels.folding import fold_norm_behind
from hybrid_backbones.kernels.switch import settings
from segnetr.models.kernels.channel_covariance import channel_covariance
from segnetr.models.kernels.mbconv_infer_cpu import FoldedKernels, mbconv_infer_cpu
from segnetr.models.kernels.mbconv_train_cpu import mbconv_train_cpu
from segnetr.models.kernels.recomputation import is_large
from segnetr.models.kernels.squeeze_excitation import SqueezeExcitation

_PIXELS_PER_CHANNEL = 1


class MBConvLayers(Protocol):
    """The layers of an MBConv and their mode."""

    training: bool
    expand: nn.Conv2d
    expand_norm: nn.BatchNorm2d
    depthwise: nn.Conv2d
    depthwise_norm: nn.BatchNorm2d
    squeeze: SqueezeExcitation | None
    project: nn.Conv2d
    project_norm: nn.BatchNorm2d


def try_mbconv_kernel(layers: MBConvLayers, x: Tensor) -> Tensor | None:
    """Apply an MBConv with the kernel that fits.

    Args:
        layers: Its layers.
        x: Maps (N, D, H, W).

    Returns:
        Maps (N, D, H, W); None if the plain modules must run.
    """
    match choose_mbconv_kernel(x, training=layers.training):
        case "train":
            return _train(layers, x)
        case "infer":
            return mbconv_infer_cpu(x, fold_mbconv(layers), _gate_weights(layers))
        case _:
            return None


def choose_mbconv_kernel(x: Tensor, *, training: bool) -> Literal["train", "infer"] | None:
    """Return which kernel fits maps like `x`; None: neither.

    The training kernel pays on a CPU, for a large map with enough pixels. It needs the covariance
    of the input's channels: D*D multiply-adds for each pixel and 4*D*D*D once, too much for few
    pixels. The inference kernel pays on a CPU with oneDNN whenever no gradient is recorded.
    """
    if settings.is_plain:
        return None
    if not training:
        return "infer" if not torch.is_grad_enabled() and onednn.supports(x) else None
    pixels = x.numel() // x.shape[1]
    fits = (
        torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and pixels >= _PIXELS_PER_CHANNEL * x.shape[1]
        and not torch.is_autocast_enabled("cpu")
        and is_large(x)
    )
    return "train" if fits else None


def fold_mbconv(layers: MBConvLayers) -> FoldedKernels:
    """Return the kernels for inference, with the running statistics of the norms folded in."""
    return FoldedKernels(
        *_fold(layers.expand, layers.expand_norm),
        *_fold(layers.depthwise, layers.depthwise_norm),
        *_fold(layers.project, layers.project_norm),
    )


def _fold(layer: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    weight, bias = fold_norm_behind(layer.weight, layer.bias, norm)
    return weight, weight.new_zeros(weight.shape[0]) if bias is None else bias


def _gate_weights(layers: MBConvLayers) -> list[Tensor]:
    return [] if layers.squeeze is None else layers.squeeze.weights


def _train(layers: MBConvLayers, x: Tensor) -> Tensor:
    first, second = layers.expand_norm, layers.depthwise_norm
    mean, covariance = channel_covariance(x)
    kernel = layers.expand.weight.flatten(1)
    expanded_mean = kernel @ mean
    expanded_variance = ((kernel @ covariance) * kernel).sum(1)
    scale = first.weight * (expanded_variance + first.eps).rsqrt()
    projected, second_mean, second_variance = mbconv_train_cpu(
        x,
        layers.expand.weight * scale[:, None, None, None],
        first.bias - expanded_mean * scale,
        layers.depthwise.weight,
        (second.weight, second.bias, second.eps),
        layers.project.weight,
        _gate_weights(layers),
    )
    pixels = x.numel() // x.shape[1]
    _update_running(first, expanded_mean, expanded_variance, pixels)
    _update_running(second, second_mean, second_variance, pixels)
    normed: Tensor = layers.project_norm(projected)
    return normed + x


@torch.no_grad()
def _update_running(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update the running statistics as `norm` does; `variance` is divided by `count`."""
    if not norm.momentum:
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * count / (count - 1), norm.momentum)

"""The one place that decides between a CPU kernel and the plain PyTorch modules.

Layers and architectures call these functions and never look at the grad mode, the device or the
type of a tensor. Each function returns what the plain modules return, up to rounding, and calls the
modules themselves wherever no kernel fits: on GPUs, in other precisions, under tracers, exporters
and dispatch modes, and inside `plain()`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.kernels import autograd, onednn
from hybrid_backbones.kernels.activation import Activation
from hybrid_backbones.kernels.compiled_product import product, takes_products
from hybrid_backbones.kernels.folding import fold_norm_ahead, fold_norm_behind
from hybrid_backbones.kernels.switch import settings


def to_fast_layout(image: Tensor) -> Tensor:
    """Return images (N, C, H, W) in channels-last memory format on a CPU, unchanged elsewhere.

    Convolutions are faster in it on CPUs, depth-wise ones several times. On a GPU the best format
    depends on the network, and the caller chooses.
    """
    if image.device.type != "cpu" or settings.is_plain:
        return image
    return image.contiguous(memory_format=torch.channels_last)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation | None = None
) -> Tensor:
    """Compute f(x W^T + b) over the last axis.

    Args:
        x: (..., C).
        weight: (D, C).
        bias: (D,) or None.
        activation: The function f, of slope 1; None: the identity.

    Returns:
        (..., D).
    """
    if onednn.can_run_inference(x):
        return onednn.linear(x, weight, bias, activation=activation)
    if takes_products(x, weight):
        rows: Tensor = product(x.reshape(-1, x.shape[-1]), weight, bias)
        result = rows.reshape(*x.shape[:-1], weight.shape[0])
    elif onednn.can_run(x):
        result = autograd.linear(x, weight, bias)
    else:
        result = F.linear(x, weight, bias)
    return result if activation is None else activation(result)


def mlp(x: Tensor, first: nn.Linear, activation: Activation, second: nn.Linear) -> Tensor:
    """Compute W2 f(W1 x + b1) + b2 over the last axis of x (..., C)."""
    slope = activation.slope
    if slope != 1 and onednn.can_run_inference(x):
        # The slope moves into the weights, which are smaller than the maps.
        hidden = onednn.linear(x, first.weight * slope, first.bias * slope, activation=activation)
        return onednn.linear(hidden, second.weight / slope, second.bias)
    if onednn.can_run_inference(x):
        hidden = onednn.linear(x, first.weight, first.bias, activation=activation)
        return onednn.linear(hidden, second.weight, second.bias)
    hidden = first(x)
    if torch.is_grad_enabled() and onednn.can_run(hidden):
        return autograd.activated_linear(hidden, second.weight, second.bias, activation)
    result: Tensor = second(activation(hidden))
    return result


def conv2d(layer: nn.Conv2d, x: Tensor, *, ahead: Activation | None = None) -> Tensor:
    """Apply a convolution; a 1x1 convolution of channels-last maps becomes a matrix product.

    Args:
        layer: The convolution.
        x: Maps (N, C, H, W).
        ahead: An activation applied to x first. In training it is computed again in the backward
            pass instead of kept, where possible.

    Returns:
        Maps (N, D, H', W').
    """
    result = try_product(layer, x, ahead=ahead)
    if result is None:
        result = layer(x if ahead is None else ahead(x))
    return result


def try_product(layer: nn.Conv2d, x: Tensor, *, ahead: Activation | None = None) -> Tensor | None:
    """Return the result of `conv2d` computed as a matrix product, or None if no kernel fits."""
    compiled = takes_products(x, layer.weight)
    if not (compiled or onednn.can_run(x)) or not _is_product(layer, x):
        return None
    weight = layer.weight.flatten(1)
    if compiled:
        # The compiler decides itself what to recompute.
        maps: Tensor = product(x if ahead is None else ahead(x), weight, layer.bias)
        return maps
    rows = x.permute(0, 2, 3, 1)
    if ahead is None:
        result = autograd.linear(rows, weight, layer.bias)
    else:
        result = autograd.activated_linear(rows, weight, layer.bias, ahead)
    return result.permute(0, 3, 1, 2)


def conv_norm(
    x: Tensor,
    layer: nn.Conv2d,
    *,
    norm_ahead: nn.Module | None = None,
    norm: nn.Module | None = None,
    activation: Activation | None = None,
) -> Tensor:
    """Apply norm, convolution, norm and activation; one pass for inference.

    Args:
        x: Maps (N, C, H, W).
        layer: The convolution, padded with zeros; without padding if `norm_ahead` is given.
        norm_ahead: The module applied first: a batch norm or the identity.
        norm: The module applied behind the convolution: a batch norm or the identity.
        activation: Applied last, of slope 1.

    Returns:
        Maps (N, D, H', W').
    """
    norms = [module for module in (norm_ahead, norm) if module is not None]
    if not any(module.training for module in norms) and onednn.can_run_inference(x):
        weight, bias = fold_norm_ahead(layer.weight, layer.bias, norm_ahead)
        weight, bias = fold_norm_behind(weight, bias, norm)
        return _run(x, layer, weight=weight, bias=bias, activation=activation)
    y = conv2d(layer, x if norm_ahead is None else norm_ahead(x))
    y = y if norm is None else norm(y)
    return y if activation is None else activation(y)


def residual_conv(x: Tensor, layer: nn.Conv2d, activation: Activation | None = None) -> Tensor:
    """Compute f(conv(x) + x) for a depth-wise convolution that keeps the size of x (N, C, H, W)."""
    if onednn.can_run_inference(x):
        # Add 1 to the center of each filter, which needs no pass over the maps.
        weight = layer.weight.clone()
        weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2] += 1
        return _run(x, layer, weight=weight, bias=layer.bias, activation=activation)
    y: Tensor = layer(x) + x
    return y if activation is None else activation(y)


def conv2d_same(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    groups: int = 1,
    activation: Activation | None = None,
) -> Tensor:
    """Convolve with stride 1 and padding that keeps the size, then activate, without gradient.

    Made for the inside of operators, and may be compiled.

    Args:
        x: Maps (N, C, H, W).
        weight: Kernel (K, C/groups, S, S), S odd.
        bias: (K,), or None.
        groups: Groups of channels; C makes the convolution depth-wise.
        activation: Applied to the result, of slope 1.

    Returns:
        Maps (N, K, H, W).
    """
    padding = weight.shape[-1] // 2
    if onednn.supports(x):
        return onednn.conv2d(
            x, weight, bias, padding=(padding, padding), groups=groups, activation=activation
        )
    result = F.conv2d(x, weight, bias, padding=padding, groups=groups)
    return result if activation is None else activation(result)


def pointwise_conv(layer: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a linear layer or a 1x1 convolution (C -> K) to every pixel of maps (N, C, H, W).

    This is always a convolution, because the library that runs matrix products is two to four times
    slower on some CPUs. Without a gradient it is oneDNN's operator, which also runs with a single
    thread; compiled, it is an operator that the compiler cannot turn into a matrix product.

    Returns:
        Maps (N, K, H, W).
    """
    weight = layer.weight.flatten(1)
    if takes_products(x, weight):
        maps: Tensor = product(x.contiguous(memory_format=torch.channels_last), weight, layer.bias)
        return maps
    kernel = weight[:, :, None, None]
    if not torch.is_grad_enabled() and onednn.supports(x):
        return conv2d_same(x, kernel, layer.bias)
    return F.conv2d(x, kernel, layer.bias)


def recomputes_activations() -> bool:
    """Return whether cheap activations should be computed again instead of kept."""
    return torch.is_grad_enabled() and not settings.is_plain


def is_pointwise(layer: nn.Conv2d) -> bool:
    """Return whether a convolution is a matrix product over the channels of each pixel."""
    shape = (*layer.kernel_size, *layer.stride, layer.groups)
    return shape == (1, 1, 1, 1, 1) and not any(layer.padding)


def _is_product(layer: nn.Conv2d, x: Tensor) -> bool:
    return is_pointwise(layer) and x.is_contiguous(memory_format=torch.channels_last)


def _run(
    x: Tensor,
    layer: nn.Conv2d,
    *,
    weight: Tensor,
    bias: Tensor | None,
    activation: Activation | None,
) -> Tensor:
    """Run a convolution with oneDNN and other weights than its own."""
    if _is_product(layer, x):
        rows = x.permute(0, 2, 3, 1)
        result = onednn.linear(rows, weight.flatten(1), bias, activation=activation)
        return result.permute(0, 3, 1, 2)
    return onednn.conv2d(
        x,
        weight,
        bias,
        padding=layer.padding,  # type: ignore[arg-type]
        stride=layer.stride,
        dilation=layer.dilation,
        groups=layer.groups,
        activation=activation,
    )

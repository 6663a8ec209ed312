"""Products and convolutions with what follows them, in one pass over memory.

For float32 on a processor. oneDNN multiplies matrices there up to twice as fast as
the library behind `torch.nn.Linear` (AMD EPYC, one core: 210 against 100 GFLOP/s), and norms and
activations reach the values before they leave the registers. PyTorch has these as operators of its
own compiler, without gradients. Everywhere else the steps run one after the other, with the same
results up to rounding.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from hybrid_backbones.layers.activation import GELU, SILU, Activation

_NOTHING: tuple[str, tuple[float, ...], str] = ("none", (), "")


def is_plain_inference(x: Tensor) -> bool:
    """Say whether no gradient is kept, and the one-pass operators can take tensors like `x`."""
    # First of all: a tracer may not even ask for the library.
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    return has_one_pass(x)


def has_one_pass(x: Tensor) -> bool:
    """Say whether the one-pass operators exist, and can take tensors like `x`."""
    if torch.compiler.is_compiling():
        return False
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and type(x) is Tensor
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        # Counters of multiply-adds and their like know the plain operators only.
        and _get_current_dispatch_mode() is None
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )


def multiply(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, activation: Activation | None = None
) -> Tensor:
    """Apply a matrix to the last axis, then an activation of slope 1; not differentiable.

    Args:
        x: (..., C), such that `is_plain_inference(x)`.
        weight: (D, C).
        bias: (D,) or None.
        activation: What follows.

    Returns:
        (..., D).
    """
    post, scalars, algorithm = activation.post if activation else _NOTHING
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        x, weight, bias, post, list(scalars), algorithm
    )
    return product


def convolve(
    x: Tensor,
    convolution: nn.Conv2d,
    *,
    norm: nn.Module | None = None,
    activation: Activation | None = None,
) -> Tensor:
    """Convolve, norm with the running moments and activate; not differentiable.

    Args:
        x: Maps (N, C, H, W), such that `is_plain_inference(x)`.
        convolution: The convolution, padded with zeros.
        norm: A batch norm in evaluation mode, or what a folded one was replaced by.
        activation: What follows, of slope 1.

    Returns:
        Maps (N, D, H', W').
    """
    weight, bias = convolution.weight, convolution.bias
    if isinstance(norm, nn.BatchNorm2d):
        scale, shift = affine_of(norm)
        weight = weight * scale[:, None, None, None]
        bias = shift if bias is None else torch.addcmul(shift, bias, scale)
    is_pointwise = convolution.kernel_size == convolution.stride == (1, 1)
    if is_pointwise and convolution.groups == 1 and not any(convolution.padding):
        last = x.permute(0, 2, 3, 1)
        if last.is_contiguous():
            product = multiply(last, weight.flatten(1), bias, activation=activation)
            return product.permute(0, 3, 1, 2)
    post, scalars, algorithm = activation.post if activation else _NOTHING
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x,
        weight,
        bias,
        list(convolution.padding),
        list(convolution.stride),
        list(convolution.dilation),
        convolution.groups,
        post,
        list(scalars),
        algorithm,
    )
    return result


def affine_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Give scale and shift (C,) of a batch norm in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, torch.addcmul(norm.bias, norm.running_mean, scale, value=-1)


class ConvSequence(nn.Sequential):
    """Convolutions, norms and activations one after the other, in few passes for inference."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, H', W')."""
        if self.training or not is_plain_inference(x):
            plain: Tensor = super().forward(x)
            return plain
        return _run(x, list(self))


def _run(x: Tensor, layers: Iterable[nn.Module]) -> Tensor:
    left = list(layers)
    while left:
        layer = left.pop(0)
        if not isinstance(layer, nn.Conv2d):
            x = layer(x)
            continue
        norm = left.pop(0) if left and isinstance(left[0], nn.BatchNorm2d | nn.Identity) else None
        activation = _ACTIVATIONS.get(type(left[0])) if left else None
        if activation is not None:
            left.pop(0)
        x = convolve(x, layer, norm=norm, activation=activation)
    return x


_ACTIVATIONS: dict[type[nn.Module], Activation] = {nn.SiLU: SILU, nn.GELU: GELU}


def processor_layout(image: Tensor) -> Tensor:
    """Put images (N, C, H, W) with their channels last, where convolutions are faster so.

    They are on processors, several times so depth-wise; on a GPU that depends on the network, and
    is left to who calls it.
    """
    if image.device.type != "cpu":
        return image
    return image.contiguous(memory_format=torch.channels_last)

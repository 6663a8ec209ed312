"""Products and convolutions with what follows them, in one pass over memory.

For float32 on a processor. oneDNN multiplies matrices there up to twice as fast as
the library behind `torch.nn.Linear` (AMD EPYC, one core: 210 against 100 GFLOP/s), and norms and
activations reach the values before they leave the registers. PyTorch has these as operators of its
own compiler, without gradients. Everywhere else the steps run one after the other, with the same
results up to rounding.
"""

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from hybrid_backbones.kernels.activation import Activation

_NOTHING: tuple[str, tuple[float, ...], str] = ("none", (), "")


def is_plain_inference(x: Tensor) -> bool:
    """Say whether no gradient is kept, and the one-pass operators can take tensors like `x`."""
    # First of all: a tracer may not even ask for the library.
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    return has_one_pass(x)


def has_one_pass(x: Tensor) -> bool:
    """Say whether the one-pass operators exist, and can take tensors like `x`."""
    if torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
        return False
    if type(x) is not Tensor or x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    # Tracers, and counters of multiply-adds, know the plain operators only.
    if torch._C._get_tracing_state() or _get_current_dispatch_mode() is not None:
        return False
    return has_onednn() and not torch.is_autocast_enabled("cpu")


def has_onednn() -> bool:
    """Say whether this build has oneDNN, switched on, with the one-pass operators."""
    library = torch.backends.mkldnn
    is_there = bool(library.is_available() and library.enabled)
    operators = ("_linear_pointwise", "_convolution_pointwise")
    return is_there and all(hasattr(torch.ops.mkldnn, name) for name in operators)


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


def multiply_transposed(rows: Tensor, inputs: Tensor) -> Tensor:
    """Give G^T X (D, C) of rows (L, D) and inputs (L, C); not differentiable.

    The narrower of the two is the faster left side; the result may be a view that is turned.
    """
    if rows.shape[1] <= inputs.shape[1]:
        return multiply(rows.t(), inputs.t(), None)
    return multiply(inputs.t(), rows.t(), None).t()


def convolve(
    x: Tensor,
    convolution: nn.Conv2d,
    *,
    ahead: nn.Module | None = None,
    norm: nn.Module | None = None,
    activation: Activation | None = None,
    shortcut: bool = False,
) -> Tensor:
    """Convolve, norm with the running moments and activate; not differentiable.

    Args:
        x: Maps (N, C, H, W), such that `is_plain_inference(x)`.
        convolution: The convolution, padded with zeros.
        ahead: A batch norm in front, of a convolution without padding; as `norm`.
        norm: A batch norm in evaluation mode, or what a folded one was replaced by.
        activation: What follows, of slope 1.
        shortcut: Add `x` before the activation: of a channel-wise convolution that keeps the size.

    Returns:
        Maps (N, D, H', W').
    """
    weight, bias = convolution.weight, convolution.bias
    if shortcut:
        # One more weight at the middle of each filter: no pass over the maps of its own.
        weight = weight.clone()
        weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2] += 1
    if isinstance(ahead, nn.BatchNorm2d):
        scale, shift = affine_of(ahead)
        moved = (weight * shift[:, None, None]).sum((1, 2, 3))
        bias = moved if bias is None else bias + moved
        weight = weight * scale[:, None, None]
    if isinstance(norm, nn.BatchNorm2d):
        scale, shift = affine_of(norm)
        weight = weight * scale[:, None, None, None]
        bias = shift if bias is None else torch.addcmul(shift, bias, scale)
    return _run(x, convolution, weight=weight, bias=bias, activation=activation)


def _run(
    x: Tensor,
    convolution: nn.Conv2d,
    *,
    weight: Tensor,
    bias: Tensor | None,
    activation: Activation | None,
) -> Tensor:
    """Convolve with other weights than the convolution's own."""
    if is_matrix(convolution, x):
        last = x.permute(0, 2, 3, 1)
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


def is_matrix(convolution: nn.Conv2d, x: Tensor) -> bool:
    """Say whether a convolution is a matrix over the channels of `x`, which lie last in memory."""
    shape = (*convolution.kernel_size, *convolution.stride, convolution.groups)
    return (
        shape == (1, 1, 1, 1, 1)
        and not any(convolution.padding)
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def affine_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Give scale and shift (C,) of a batch norm in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, torch.addcmul(norm.bias, norm.running_mean, scale, value=-1)


def processor_layout(image: Tensor) -> Tensor:
    """Put images (N, C, H, W) with their channels last, where convolutions are faster so.

    They are on processors, several times so depth-wise; on a GPU that depends on the network, and
    is left to who calls it.
    """
    if image.device.type != "cpu":
        return image
    return image.contiguous(memory_format=torch.channels_last)

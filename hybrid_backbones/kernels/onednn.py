"""The only caller of oneDNN's private PyTorch operators, and the test of whether they can be used.

For float32 on a CPU. oneDNN multiplies matrices there up to twice as fast as the library behind
`torch.nn.Linear` (AMD EPYC, one core: 210 against 100 GFLOP/s), and applies biases and activations
before the values leave the registers. PyTorch has these as operators of its own compiler, without
gradients. If a PyTorch release drops them, `has_onednn` returns False and the plain modules run.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hybrid_backbones.kernels.activation import Activation
from hybrid_backbones.kernels.switch import settings
from hybrid_backbones.kernels.tracing import runs_eagerly

_NO_ACTIVATION: tuple[str, tuple[float, ...], str] = ("none", (), "")


def has_onednn() -> bool:
    """Return whether this build has oneDNN with both operators, and it is enabled."""
    library = torch.backends.mkldnn
    is_enabled = bool(library.is_available() and library.enabled)
    operators = ("_linear_pointwise", "_convolution_pointwise")
    return is_enabled and all(hasattr(torch.ops.mkldnn, name) for name in operators)


# A compiler cannot trace this function, so its result becomes a constant of the graph. The
# attribute is that of `torch.compiler.assume_constant_result`, which imports the whole compiler.
has_onednn._dynamo_marked_constant = True  # type: ignore[attr-defined]


def supports(x: Tensor) -> bool:
    """Return whether oneDNN's operators can take a tensor like `x`, also while compiling.

    False while exporting, so that exported files hold plain operators only.
    """
    if settings.is_plain or torch.compiler.is_exporting():
        return False
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    return bool(has_onednn())


def can_run(x: Tensor) -> bool:
    """Return whether eager code can call the operators with a tensor like `x`."""
    return runs_eagerly(x) and supports(x)


def can_run_inference(x: Tensor) -> bool:
    """Return whether no gradient is recorded and `can_run(x)`."""
    # First, because a tracer cannot ask for the rest.
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    return can_run(x)


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, activation: Activation | None = None
) -> Tensor:
    """Compute f(x W^T + b) over the last axis, without gradient.

    Args:
        x: (..., C), with `can_run(x)`.
        weight: (D, C).
        bias: (D,) or None.
        activation: The function f, of slope 1; None: the identity.

    Returns:
        (..., D).
    """
    post, scalars, algorithm = activation.post if activation else _NO_ACTIVATION
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        x, weight, bias, post, list(scalars), algorithm
    )
    return product


def transposed_product(rows: Tensor, inputs: Tensor) -> Tensor:
    """Compute G^T X (D, C) of rows (L, D) and inputs (L, C), without gradient.

    The narrower factor is faster on the left. The result may be a transposed view.
    """
    if rows.shape[1] <= inputs.shape[1]:
        return linear(rows.t(), inputs.t(), None)
    return linear(inputs.t(), rows.t(), None).t()


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    padding: Sequence[int],
    stride: Sequence[int] = (1, 1),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    activation: Activation | None = None,
) -> Tensor:
    """Convolve with zero padding and activate, without gradient.

    Args:
        x: Maps (N, C, H, W), with `supports(x)`.
        weight: Kernel (D, C/groups, R, S).
        bias: (D,) or None.
        padding: Rows and columns of zeros on each side.
        stride: Steps along both axes.
        dilation: Distances of the kernel's elements.
        groups: Groups of channels.
        activation: Applied to the result, of slope 1; None: the identity.

    Returns:
        Maps (N, D, H', W').
    """
    post, scalars, algorithm = activation.post if activation else _NO_ACTIVATION
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x,
        weight,
        bias,
        list(padding),
        list(stride),
        list(dilation),
        groups,
        post,
        list(scalars),
        algorithm,
    )
    return result

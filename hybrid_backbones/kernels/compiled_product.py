"""The matrix products of oneDNN as operators that a compiler takes as they are.

Left to itself, `torch.compile` gives float32 products on a processor to the library behind
`torch.nn.Linear`, which has half the speed (see `layers/inference.py`): compiled, a training step
was slower than uncompiled. These operators it cannot look into; it fuses what lies between them.
"""

from typing import Any

import torch
from torch import Tensor

from hybrid_backbones.kernels.inference import has_onednn, multiply, multiply_transposed

# Multiply-adds below which calling an operator (some 30 microseconds) costs more than it saves.
_LEAST = 2**22


def takes_products(x: Tensor, weight: Tensor) -> bool:
    """Say whether a compiler traces this, for a processor, and gains by oneDNN's product.

    Exporters trace too, and know the plain operators only.

    Args:
        x: (..., C), or maps (N, C, H, W).
        weight: (D, C), or a kernel (D, C, 1, 1).
    """
    if not torch.compiler.is_compiling():
        return False
    if torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
        return False
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    return x.numel() * weight.shape[0] >= _LEAST and _is_there()


# Asked once while tracing: the answer is the build's, and compilers cannot trace the question.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_there() -> bool:
    return has_onednn()


@torch.library.custom_op("hybrid_backbones::product", mutates_args=())
def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Give x W^T + b.

    Maps are not turned into rows outside, where the compiler would see them: to the tensors of four
    axes behind a convolution it gives its own order in memory, which for turned ones is the wrong
    one, and copies them.

    Args:
        x: Rows (L, C), or maps (N, C, H, W) whose channels lie last in memory.
        weight: (D, C).
        bias: (D,) or None.

    Returns:
        Rows (L, D), or maps (N, D, H, W) whose channels lie last in memory.
    """
    result = multiply(_last(x), weight, bias)
    return result if x.ndim == 2 else result.permute(0, 3, 1, 2)


@product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    del bias
    result = x.new_empty((*_last(x).shape[:-1], weight.shape[0]))
    return result if x.ndim == 2 else result.permute(0, 3, 1, 2)


@torch.library.custom_op("hybrid_backbones::product_of_transposed", mutates_args=())
def _product_of_transposed(gradient: Tensor, x: Tensor) -> Tensor:
    """Give the gradient (D, C) of a matrix from that of the product and its x."""
    rows, inputs = _last(gradient).flatten(0, -2), _last(x).flatten(0, -2)
    return multiply_transposed(rows, inputs).contiguous()


@_product_of_transposed.register_fake
def _(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.new_empty((gradient.shape[1], x.shape[1]))


def _last(x: Tensor) -> Tensor:
    """Give maps as (N, H, W, C), a view; rows as they are."""
    return x if x.ndim == 2 else x.permute(0, 2, 3, 1)


def _in_order(x: Tensor) -> Tensor:
    order = torch.contiguous_format if x.ndim == 2 else torch.channels_last
    return x.contiguous(memory_format=order)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    del output
    ctx.save_for_backward(inputs[0], inputs[1])


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    # Read once: inside a checkpoint a second reading is refused.
    x, weight = ctx.saved_tensors
    gradient = _in_order(gradient)
    wanted = ctx.needs_input_grad
    to_x = product(gradient, weight.t(), None) if wanted[0] else None
    to_weight = _product_of_transposed(gradient, x) if wanted[1] else None
    places = [axis for axis in range(x.ndim) if axis != 1]
    return to_x, to_weight, gradient.sum(places) if wanted[2] else None


def _keep_both(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _differentiate_both(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None]:
    gradient, x = ctx.saved_tensors
    to_gradient = product(x, slope, None) if ctx.needs_input_grad[0] else None
    to_x = product(gradient, slope.t(), None) if ctx.needs_input_grad[1] else None
    return to_gradient, to_x


product.register_autograd(_differentiate, setup_context=_keep)
_product_of_transposed.register_autograd(_differentiate_both, setup_context=_keep_both)

"""Matrix products of oneDNN as opaque operators for `torch.compile`.

By default, `torch.compile` uses the library behind `torch.nn.Linear` for float32 products on a CPU,
which has half the speed (see `onednn.py`): a compiled training step was slower than an eager one.
The compiler cannot look into these operators. It fuses the code between them.
"""

from typing import Any

import torch
from torch import Tensor

from hybrid_backbones.kernels import onednn
from hybrid_backbones.kernels.switch import settings


def takes_products(x: Tensor, weight: Tensor) -> bool:
    """Return whether a compiler traces this for a CPU, and oneDNN's product is worth its call.

    False while exporting, because exported files must hold plain operators only.

    Args:
        x: (..., C), or maps (N, C, H, W).
        weight: (D, C), or a kernel (D, C, 1, 1).
    """
    if not torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
        return False
    return onednn.supports(x) and x.numel() * weight.shape[0] >= settings.min_product_macs


@torch.library.custom_op("hybrid_backbones::product", mutates_args=())
def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute x W^T + b.

    Maps are turned into rows inside the operator. Outside, the compiler would see the permutation,
    choose its own memory order for the 4-d tensors behind a convolution, and copy them.

    Args:
        x: Rows (L, C), or maps (N, C, H, W) in channels-last memory format.
        weight: (D, C).
        bias: (D,) or None.

    Returns:
        Rows (L, D), or maps (N, D, H, W) in channels-last memory format.
    """
    result = onednn.linear(_channels_last(x), weight, bias)
    return result if x.ndim == 2 else result.permute(0, 3, 1, 2)


@product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    del bias
    result = x.new_empty((*_channels_last(x).shape[:-1], weight.shape[0]))
    return result if x.ndim == 2 else result.permute(0, 3, 1, 2)


@torch.library.custom_op("hybrid_backbones::product_of_transposed", mutates_args=())
def _product_of_transposed(gradient: Tensor, x: Tensor) -> Tensor:
    """Compute the gradient (D, C) of a weight from the product's gradient and input."""
    rows, inputs = _channels_last(gradient).flatten(0, -2), _channels_last(x).flatten(0, -2)
    return onednn.transposed_product(rows, inputs).contiguous()


@_product_of_transposed.register_fake
def _(gradient: Tensor, x: Tensor) -> Tensor:
    return gradient.new_empty((gradient.shape[1], x.shape[1]))


def _channels_last(x: Tensor) -> Tensor:
    """View maps as (N, H, W, C); return rows unchanged."""
    return x if x.ndim == 2 else x.permute(0, 2, 3, 1)


def _contiguous(x: Tensor) -> Tensor:
    order = torch.contiguous_format if x.ndim == 2 else torch.channels_last
    return x.contiguous(memory_format=order)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    del output
    ctx.save_for_backward(inputs[0], inputs[1])


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    # Read once: a second access is refused inside a checkpoint.
    x, weight = ctx.saved_tensors
    gradient = _contiguous(gradient)
    is_needed = ctx.needs_input_grad
    x_gradient = product(gradient, weight.t(), None) if is_needed[0] else None
    weight_gradient = _product_of_transposed(gradient, x) if is_needed[1] else None
    axes = [axis for axis in range(x.ndim) if axis != 1]
    return x_gradient, weight_gradient, gradient.sum(axes) if is_needed[2] else None


def _save_both(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _differentiate_transposed(ctx: Any, outer: Tensor) -> tuple[Tensor | None, Tensor | None]:
    gradient, x = ctx.saved_tensors
    first = product(x, outer, None) if ctx.needs_input_grad[0] else None
    second = product(gradient, outer.t(), None) if ctx.needs_input_grad[1] else None
    return first, second


product.register_autograd(_differentiate, setup_context=_save)
_product_of_transposed.register_autograd(_differentiate_transposed, setup_context=_save_both)

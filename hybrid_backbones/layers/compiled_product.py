"""The matrix products of oneDNN as operators that a compiler takes as they are.

Left to itself, `torch.compile` gives float32 products on a processor to the library behind
`torch.nn.Linear`, which has half the speed (see `layers/inference.py`): compiled, a training step
was slower than uncompiled. These operators it cannot look into; it fuses what lies between them.
"""

from typing import Any

import torch
from torch import Tensor

from hybrid_backbones.layers.inference import has_onednn, multiply, multiply_transposed

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

    Args:
        x: (..., C).
        weight: (D, C).
        bias: (D,) or None.

    Returns:
        (..., D).
    """
    return multiply(x, weight, bias)


@product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    del bias
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


@torch.library.custom_op("hybrid_backbones::product_of_transposed", mutates_args=())
def _product_of_transposed(rows: Tensor, inputs: Tensor) -> Tensor:
    """Give G^T X (D, C) of rows (L, D) and inputs (L, C): the gradient of a matrix."""
    return multiply_transposed(rows, inputs).contiguous()


@_product_of_transposed.register_fake
def _(rows: Tensor, inputs: Tensor) -> Tensor:
    return rows.new_empty((rows.shape[1], inputs.shape[1]))


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    del output
    ctx.save_for_backward(inputs[0], inputs[1])


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    # Read once: inside a checkpoint a second reading is refused.
    x, weight = ctx.saved_tensors
    gradient = gradient.contiguous()
    rows = gradient.flatten(0, -2)
    wanted = ctx.needs_input_grad
    to_x = product(gradient, weight.t(), None) if wanted[0] else None
    to_weight = _product_of_transposed(rows, x.flatten(0, -2)) if wanted[1] else None
    return to_x, to_weight, rows.sum(0) if wanted[2] else None


def _keep_both(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    del output
    ctx.save_for_backward(*inputs)


def _differentiate_both(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
    rows, inputs = ctx.saved_tensors
    to_rows = product(inputs, gradient, None) if ctx.needs_input_grad[0] else None
    to_inputs = product(rows, gradient.t(), None) if ctx.needs_input_grad[1] else None
    return to_rows, to_inputs


product.register_autograd(_differentiate, setup_context=_keep)
_product_of_transposed.register_autograd(_differentiate_both, setup_context=_keep_both)

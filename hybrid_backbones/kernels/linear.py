"""A matrix over the last axis, fast on processors."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.kernels.activation import Activation
from hybrid_backbones.kernels.compiled_product import product, takes_products
from hybrid_backbones.kernels.inference import (
    has_one_pass,
    is_matrix,
    is_plain_inference,
    multiply,
    multiply_transposed,
)


class Linear(nn.Linear):
    """`torch.nn.Linear`, which runs through oneDNN in float32 on a processor."""

    def forward(self, x: Tensor, activation: Activation | None = None) -> Tensor:
        """Map (..., C) to (..., D); `activation`, of slope 1, is applied to the result."""
        if is_plain_inference(x):
            return multiply(x, self.weight, self.bias, activation=activation)
        result = _multiply(x, self.weight, self.bias)
        return result if activation is None else activation(result)


def apply_convolution(
    convolution: nn.Conv2d, x: Tensor, *, ahead: Activation | None = None
) -> Tensor:
    """Convolve maps (N, C, H, W), through the matrix's products where it is one.

    `ahead` is applied to x first, where it can be as in `apply_activated`.
    """
    weight, bias = convolution.weight, convolution.bias
    compiled = takes_products(x, weight)
    if not (compiled or has_one_pass(x)) or not is_matrix(convolution, x):
        plain: Tensor = convolution(x if ahead is None else ahead(x))
        return plain
    if compiled:
        # A compiler finds out by itself what is cheaper to compute again than to keep.
        maps: Tensor = product(x if ahead is None else ahead(x), weight.flatten(1), bias)
        return maps
    weight, rows = weight.flatten(1), x.permute(0, 2, 3, 1)
    if ahead is None:
        result = _multiply(rows, weight, bias)
    else:
        result = _multiply_activated(rows, weight, bias, ahead)
    return result.permute(0, 3, 1, 2)


def apply_activated(matrix: Linear, x: Tensor, activation: Activation) -> Tensor:
    """Activate (..., C) and apply a matrix, keeping less for the backward pass where it can.

    The activation is computed a second time there, which costs little beside the products.
    """
    if not torch.is_grad_enabled() or not has_one_pass(x):
        plain: Tensor = matrix(activation(x))
        return plain
    return _multiply_activated(x, matrix.weight, matrix.bias, activation)


def _multiply_activated(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation
) -> Tensor:
    result: Tensor = _ActivatedProduct.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, activation
    )
    return result


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if takes_products(x, weight):
        rows: Tensor = product(x.reshape(-1, x.shape[-1]), weight, bias)
        return rows.reshape(*x.shape[:-1], weight.shape[0])
    if not has_one_pass(x):
        return F.linear(x, weight, bias)
    result: Tensor = _Product.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


class _Product(torch.autograd.Function):
    """x W^T + b and its gradients, three products of oneDNN."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return multiply(x, weight, bias)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor
    ) -> None:
        del output
        ctx.save_for_backward(inputs[0], inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x = _gradient_of_input(gradient, weight) if ctx.needs_input_grad[0] else None
        return to_x, *_gradients_of_matrix(gradient, x, ctx.needs_input_grad[1:])


class _ActivatedProduct(torch.autograd.Function):
    """f(x) W^T + b, which keeps x for the backward pass and not f(x) too."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        return multiply(_activate(x.detach(), activation), weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        ctx.save_for_backward(inputs[0], inputs[1])
        ctx.activation = inputs[3]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        again = torch.is_grad_enabled()
        x = x if again else x.detach().requires_grad_()
        active = _activate(x, ctx.activation)
        matrix = _gradients_of_matrix(gradient, active, ctx.needs_input_grad[1:3])
        to_x = None
        if ctx.needs_input_grad[0]:
            to_active = _gradient_of_input(gradient, weight)
            (to_x,) = torch.autograd.grad(active, x, to_active, create_graph=again)
        return to_x, *matrix, None


def _activate(x: Tensor, activation: Activation) -> Tensor:
    # Activations overwrite x where no gradient is kept; here it is kept.
    with torch.enable_grad():
        return activation(x)


def _gradient_of_input(gradient: Tensor, weight: Tensor) -> Tensor:
    # A gradient of the gradient needs operators that have one themselves.
    if torch.is_grad_enabled():
        return gradient @ weight
    return multiply(gradient.contiguous(), weight.t(), None)


def _gradients_of_matrix(
    gradient: Tensor, x: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Give the gradients of weight and bias, where wanted."""
    rows, inputs = gradient.flatten(0, -2), x.flatten(0, -2)
    to_weight = to_bias = None
    if wanted[0] and torch.is_grad_enabled():
        to_weight = rows.t() @ inputs
    elif wanted[0]:
        to_weight = multiply_transposed(rows.contiguous(), inputs.detach())
    if wanted[1]:
        to_bias = rows.sum(0)
    return to_weight, to_bias

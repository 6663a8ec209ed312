"""A matrix over the last axis, fast on processors."""

from typing import Any

import torch
from torch import Tensor, nn

from hybrid_backbones.layers.activation import Activation
from hybrid_backbones.layers.inference import (
    has_one_pass,
    is_matrix,
    is_plain_inference,
    multiply,
)


class Linear(nn.Linear):
    """`torch.nn.Linear`, which runs through oneDNN in float32 on a processor."""

    def forward(self, x: Tensor, activation: Activation | None = None) -> Tensor:
        """Map (..., C) to (..., D); `activation`, of slope 1, is applied to the result."""
        if is_plain_inference(x):
            return multiply(x, self.weight, self.bias, activation=activation)
        fast = has_one_pass(x)
        product = _multiply(x, self.weight, self.bias) if fast else super().forward(x)
        return product if activation is None else activation(product)


def apply_convolution(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """Convolve maps (N, C, H, W), through the matrix's products where it is one."""
    if not has_one_pass(x) or not is_matrix(convolution, x):
        plain: Tensor = convolution(x)
        return plain
    weight = convolution.weight.flatten(1)
    return _multiply(x.permute(0, 2, 3, 1), weight, convolution.bias).permute(0, 3, 1, 2)


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = _Product.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return product


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
        rows, inputs = gradient.flatten(0, -2), x.flatten(0, -2)
        # A gradient of the gradient needs operators that have one themselves.
        plain = torch.is_grad_enabled()
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            to_x = gradient @ weight if plain else multiply(gradient.contiguous(), weight.t(), None)
        if ctx.needs_input_grad[1]:
            to_weight = rows.t() @ inputs if plain else _outer(rows.contiguous(), inputs)
        if ctx.needs_input_grad[2]:
            to_bias = rows.sum(0)
        return to_x, to_weight, to_bias


def _outer(rows: Tensor, inputs: Tensor) -> Tensor:
    """Give G^T X; the narrower of the two is the faster left side."""
    if rows.shape[1] <= inputs.shape[1]:
        return multiply(rows.t(), inputs.t(), None)
    return multiply(inputs.t(), rows.t(), None).t()

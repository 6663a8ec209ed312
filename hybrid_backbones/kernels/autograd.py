"""Matrix products of oneDNN with gradients, which the operators themselves do not have."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_backbones.kernels import onednn
from hybrid_backbones.kernels.activation import Activation


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute x W^T + b over the last axis of x (..., C); see `onednn.linear`."""
    result: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


def activated_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation
) -> Tensor:
    """Compute f(x) W^T + b, and keep only x for the backward pass.

    The backward pass computes f(x) again, which costs little compared to the products.
    """
    result: Tensor = _ActivatedLinear.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, activation
    )
    return result


class _Linear(torch.autograd.Function):
    """x W^T + b and its gradients: three products of oneDNN."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return onednn.linear(x, weight, bias)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor
    ) -> None:
        del output
        ctx.save_for_backward(inputs[0], inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        x_gradient = _input_gradient(gradient, weight) if ctx.needs_input_grad[0] else None
        return x_gradient, *_parameter_gradients(gradient, x, ctx.needs_input_grad[1:])


class _ActivatedLinear(torch.autograd.Function):
    """f(x) W^T + b, which saves x and not f(x)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        return onednn.linear(_activate(x.detach(), activation), weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        ctx.save_for_backward(inputs[0], inputs[1])
        ctx.activation = inputs[3]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        is_differentiated_twice = torch.is_grad_enabled()
        x = x if is_differentiated_twice else x.detach().requires_grad_()
        active = _activate(x, ctx.activation)
        parameters = _parameter_gradients(gradient, active, ctx.needs_input_grad[1:3])
        x_gradient = None
        if ctx.needs_input_grad[0]:
            active_gradient = _input_gradient(gradient, weight)
            (x_gradient,) = torch.autograd.grad(
                active, x, active_gradient, create_graph=is_differentiated_twice
            )
        return x_gradient, *parameters, None


def _activate(x: Tensor, activation: Activation) -> Tensor:
    # Activations overwrite x where no gradient is recorded. Here x is still needed.
    with torch.enable_grad():
        return activation(x)


def _input_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    # The gradient of a gradient needs operators that are differentiable themselves.
    if torch.is_grad_enabled():
        return gradient @ weight
    return onednn.linear(gradient.contiguous(), weight.t(), None)


def _parameter_gradients(
    gradient: Tensor, x: Tensor, is_needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of weight and bias, each only if needed."""
    rows, inputs = gradient.flatten(0, -2), x.flatten(0, -2)
    weight_gradient = bias_gradient = None
    if is_needed[0] and torch.is_grad_enabled():
        weight_gradient = rows.t() @ inputs
    elif is_needed[0]:
        weight_gradient = onednn.transposed_product(rows.contiguous(), inputs.detach())
    if is_needed[1]:
        bias_gradient = rows.sum(0)
    return weight_gradient, bias_gradient

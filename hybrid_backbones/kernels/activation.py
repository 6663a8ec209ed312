"""Activations, with the names and parameters that oneDNN needs to fuse them into a product."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Activation:
    """An element-wise function f.

    Attributes:
        function: Applies f to a tensor. It may overwrite its input if no gradient is recorded.
        post: Name, scalars and algorithm of g in oneDNN, where f(x) = g(slope x) / slope.
        slope: The slope in that equation.
    """

    function: Callable[[Tensor], Tensor]
    post: tuple[str, tuple[float, ...], str]
    slope: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        """Apply f to x (...), which the caller must not use afterwards."""
        return self.function(x)


_QUICK_GELU_SLOPE = 1.702


def _silu(x: Tensor) -> Tensor:
    # In place only if no gradient needs the input, because autograd would copy it first.
    return F.silu(x, inplace=not torch.is_grad_enabled())


def _relu6(x: Tensor) -> Tensor:
    return F.relu6(x, inplace=not torch.is_grad_enabled())


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x)


def _quick_gelu(x: Tensor) -> Tensor:
    # SiLU saves one tensor for the backward pass. A product x * sigmoid(x) saves two.
    return F.silu(_QUICK_GELU_SLOPE * x).div_(_QUICK_GELU_SLOPE)


SILU = Activation(_silu, ("swish", (), ""))
RELU6 = Activation(_relu6, ("hardtanh", (0.0, 6.0), ""))
GELU = Activation(_gelu, ("gelu", (), "none"))
# x * sigmoid(1.702 x). The transformers library uses the exact GELU in its CvT instead.
QUICK_GELU = Activation(_quick_gelu, ("swish", (), ""), slope=_QUICK_GELU_SLOPE)

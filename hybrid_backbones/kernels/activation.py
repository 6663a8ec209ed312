"""Activations: as PyTorch has them, and as oneDNN applies them to a product's values."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Activation:
    """An element-wise function f.

    Attributes:
        function: Applies f to a tensor; may overwrite it where no gradient is kept.
        post: What oneDNN calls g, its scalars and its algorithm, with f(x) = g(slope x) / slope.
        slope: See `post`.
    """

    function: Callable[[Tensor], Tensor]
    post: tuple[str, tuple[float, ...], str]
    slope: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        """Apply to x (...), which the caller needs no more."""
        return self.function(x)


_STEEP = 1.702


def _silu(x: Tensor) -> Tensor:
    # In place only where no gradient needs the input: autograd would copy it first.
    return F.silu(x, inplace=not torch.is_grad_enabled())


def _relu6(x: Tensor) -> Tensor:
    return F.relu6(x, inplace=not torch.is_grad_enabled())


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x)


def _quick_gelu(x: Tensor) -> Tensor:
    # Through SiLU, which keeps one tensor for the backward pass where a product keeps two.
    return F.silu(_STEEP * x).div_(_STEEP)


SILU = Activation(_silu, ("swish", (), ""))
RELU6 = Activation(_relu6, ("hardtanh", (0.0, 6.0), ""))
GELU = Activation(_gelu, ("gelu", (), "none"))
# x * sigmoid(1.702 x); the transformers library has the exact GELU in its CvT, which is another.
QUICK_GELU = Activation(_quick_gelu, ("swish", (), ""), slope=_STEEP)

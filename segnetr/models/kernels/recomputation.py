"""Save memory in training by computing large intermediate maps again for the gradient.

On a CPU, fresh memory costs more than the arithmetic that fills it: the system clears every page
that a large tensor touches for the first time. So the layers that are cheap to compute keep only
their input there. On a GPU, and under a compiler, which decides itself what to keep, nothing
changes. Small maps are kept: the process reuses their pages, and recomputation costs more.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hybrid_backbones.kernels import recomputation
from hybrid_backbones.kernels.switch import settings


def is_large(x: Tensor) -> bool:
    """Return whether the maps computed from the map `x` are too large for memory to be reused."""
    return x.numel() * x.element_size() >= settings.large_map_bytes


def recompute_large_maps(
    function: Callable[[Tensor], Tensor], x: Tensor, *, norms: tuple[nn.BatchNorm2d, ...] = ()
) -> Tensor:
    """Call a function, on a CPU without keeping its intermediate maps if `x` is large.

    Args:
        function: Called again in the backward pass. It must not draw random numbers.
        x: Its argument.
        norms: The batch norms inside. Only the first call updates their running statistics.

    Returns:
        The result of `function`.
    """
    if settings.is_plain or x.device.type != "cpu" or torch.compiler.is_compiling():
        return function(x)
    if not torch.is_grad_enabled() or not is_large(x):
        return function(x)
    result: Tensor = recomputation.recompute(function, x, norms=norms, preserve_rng_state=False)
    return result

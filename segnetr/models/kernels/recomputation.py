"""Trading memory for time in training: intermediate maps are made again for the gradient.

On a processor fresh memory costs more than the arithmetic that fills it: the system clears every
page that a large tensor touches for the first time. So the parts of the network that are cheap to
compute keep only their input there. On a GPU, and where a compiler decides what to keep, nothing
changes. Small maps are kept: their pages stay with the process, and making them again costs more.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Measured on two cores: below, keeping what a block makes of a map is faster; above, what it makes
# (four times as wide, several at once) outgrows the memory that the C library keeps for reuse.
LARGE_BYTES = 2 * 2**20


def is_large(x: Tensor) -> bool:
    """Say whether what is made of the map `x` is too large for its memory to be used again."""
    return x.numel() * x.element_size() >= LARGE_BYTES


def recompute(
    function: Callable[[Tensor], Tensor], x: Tensor, *, norms: tuple[nn.BatchNorm2d, ...] = ()
) -> Tensor:
    """Apply a function without keeping what it makes on the way.

    Args:
        function: To be called again for the gradient; draws no random numbers.
        x: Its argument.
        norms: The batch norms inside; their running moments are updated by the first call only.

    Returns:
        What `function` returns.
    """
    if not torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
        return function(x)
    if not is_large(x):
        return function(x)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _kept_moments(norms)

    result: Tensor = checkpoint(
        function, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
    )
    return result


@contextmanager
def _kept_moments(norms: tuple[nn.BatchNorm2d, ...]) -> Iterator[None]:
    """Let norms use a batch's moments without taking them into the running ones."""
    # A momentum of 0 rather than no tracking: what a norm saves must stay the same.
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches

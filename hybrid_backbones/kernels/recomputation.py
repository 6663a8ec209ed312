"""Recompute intermediate tensors in the backward pass instead of keeping them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hybrid_backbones.kernels.folding import BatchNorm


def list_norms(module: nn.Module) -> tuple[BatchNorm, ...]:
    """Return the batch norms inside a module."""
    return tuple(layer for layer in module.modules() if isinstance(layer, BatchNorm))


@contextmanager
def frozen_statistics(norms: Iterable[BatchNorm]) -> Iterator[None]:
    """Let batch norms normalize with the batch's statistics without updating the running ones."""
    norms = tuple(norms)
    # A momentum of 0 and not `track_running_stats=False`, so that the norm saves the same tensors.
    saved = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, saved, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


def recompute(
    function: Callable[..., Any],
    *inputs: object,
    norms: Iterable[BatchNorm] = (),
    preserve_rng_state: bool = True,
) -> Any:
    """Call a function, and keep only its inputs for the backward pass.

    Args:
        function: Called again in the backward pass.
        *inputs: Its arguments.
        norms: The batch norms inside. Only the first call updates their running statistics.
        preserve_rng_state: Draw the same random numbers in both calls.

    Returns:
        The result of `function`.
    """
    if not torch.is_grad_enabled():
        return function(*inputs)
    if torch.compiler.is_compiling():
        # Compiled graphs update statistics only once, and do not accept our contexts.
        return checkpoint(function, *inputs, use_reentrant=False)
    norms = tuple(norms)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), frozen_statistics(norms)

    return checkpoint(
        function,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=preserve_rng_state,
        context_fn=contexts,
    )

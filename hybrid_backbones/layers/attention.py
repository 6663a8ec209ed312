"""Attention heads, back to one vector."""

import torch
from torch import Tensor


def merge_heads(attended: Tensor) -> Tensor:
    """Put the results of heads (..., A, L, D) side by side: (..., L, A * D)."""
    swapped = attended.transpose(-3, -2)
    if torch.compiler.is_exporting():
        # How attention leaves its result in memory depends on the kernel, and exporters trace more
        # than once: a view that one kernel allows would be written down for all.
        swapped = swapped.clone(memory_format=torch.contiguous_format)
    return swapped.flatten(-2)

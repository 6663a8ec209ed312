"""Helpers for multi-head attention."""

import torch
import torch.nn.functional as F
from torch import Tensor


def merge_heads(attended: Tensor) -> Tensor:
    """Concatenate the results of heads (..., A, L, D) to (..., L, A * D)."""
    swapped = attended.transpose(-3, -2)
    if torch.compiler.is_exporting():
        # The memory order of an attention's result depends on the kernel, and exporters trace more
        # than once: a view that one kernel allows would be recorded for all.
        swapped = swapped.clone(memory_format=torch.contiguous_format)
    return swapped.flatten(-2)


def attend_in_windows(qkv: Tensor, heads: int, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Attend inside windows with a bias for each head.

    Args:
        qkv: Queries, keys and values (N, L, P, 3 * D) of L windows of P tokens.
        heads: Number of heads, A.
        bias: Added to the scores, (A, P, P).
        mask: Added to the scores of each window, (L, P, P) or (L, 1, P); None: nothing.

    Returns:
        (N, L, P, D).

    Source:
        Liu et al., Swin Transformer, arXiv:2103.14030, section 3.2, equation 4.
    """
    count = qkv.shape[1]
    split = qkv.unflatten(-1, (3, heads, -1))
    if mask is None:
        q, k, v = split.flatten(0, 1).permute(2, 0, 3, 1, 4).unbind(0)
        # Training saves scaled copies of queries and keys. Copying the values too frees `qkv`.
        v = v.contiguous() if torch.is_grad_enabled() else v
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(0).contiguous())
        return merge_heads(out.unflatten(0, (-1, count)))
    # Windows and heads share an axis, so that one bias serves the whole batch. The three parts are
    # copied separately, so that `qkv`, the largest tensor here, is not kept.
    q, k, v = (part.flatten(1, 2) for part in split.permute(3, 0, 1, 4, 2, 5).unbind(0))
    both = (bias + mask.unsqueeze(1)).flatten(0, 1).unsqueeze(0)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=both)
    return merge_heads(out.unflatten(1, (count, heads)))

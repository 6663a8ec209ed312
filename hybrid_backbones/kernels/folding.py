"""Fold batch norms in evaluation mode into the convolution or matrix before or after them."""

import torch
from torch import Tensor, nn

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def norm_as_affine(norm: BatchNorm, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Return scale and shift (C,) of a batch norm that uses its running statistics.

    Args:
        norm: The batch norm.
        dtype: Precision of the computation; None: the norm's own.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    dtype = dtype or norm.weight.dtype
    weight, bias, mean, variance = (
        value.to(dtype) for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    scale = weight * (variance + norm.eps).rsqrt()
    return scale, torch.addcmul(bias, mean, scale, value=-1)


def fold_norm_behind(
    weight: Tensor, bias: Tensor | None, norm: nn.Module | None
) -> tuple[Tensor, Tensor | None]:
    """Fold the norm after a product into its weight (D, ...) and bias (D,).

    Args:
        weight: Kernel or matrix; its type is the precision of the computation.
        bias: Its bias, or None.
        norm: The batch norm; anything else (None, or the identity that replaced a folded norm)
            changes nothing.

    Returns:
        The folded weight and bias.
    """
    if not isinstance(norm, BatchNorm):
        return weight, bias
    scale, shift = norm_as_affine(norm, weight.dtype)
    folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return folded, shift if bias is None else torch.addcmul(shift, bias, scale)


def fold_norm_ahead(
    weight: Tensor, bias: Tensor | None, norm: nn.Module | None
) -> tuple[Tensor, Tensor | None]:
    """Fold the norm before a convolution into its kernel (D, C, R, S) and bias (D,).

    The convolution must not have padding, which would insert zeros in place of the norm's shift.

    Args:
        weight: Kernel; its type is the precision of the computation.
        bias: Its bias, or None.
        norm: As in `fold_norm_behind`.

    Returns:
        The folded weight and bias.
    """
    if not isinstance(norm, BatchNorm):
        return weight, bias
    scale, shift = norm_as_affine(norm, weight.dtype)
    moved = (weight * shift[:, None, None]).sum((1, 2, 3))
    return weight * scale[:, None, None], moved if bias is None else bias + moved

"""Fold the batch norms of a whole network, once, for inference."""

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from hybrid_backbones.backbone import Backbone, FeatureExtractor
from hybrid_backbones.kernels.folding import BatchNorm, fold_norm_ahead, fold_norm_behind

_Network = TypeVar("_Network", Backbone, FeatureExtractor)
_Product = nn.Conv2d | nn.Linear


def fuse(model: _Network) -> _Network:
    """Copy a network for inference, with each batch norm folded into its neighboring layer.

    Norms behind a convolution or a matrix are folded into it, and CMT's norm in front of a 1x1
    convolution into that. CMT's norms behind a GELU and in front of padding remain. Swin and
    MoA-Transformer have no batch norms; their copies are frozen all the same.

    Args:
        model: The network, which is not changed.

    Returns:
        A frozen copy in evaluation mode with the same outputs, which cannot be trained and cannot
        load published checkpoints.
    """
    fused = copy.deepcopy(model).eval()
    for module in list(fused.modules()):
        for before, norm in _pairs_behind(module):
            _fold(module, norm, product=module.get_submodule(before), is_ahead=False)
        for norm, after in getattr(module, "norms_ahead", ()):
            if isinstance(module.get_submodule(norm), BatchNorm):
                _fold(module, norm, product=module.get_submodule(after), is_ahead=True)
    fused.requires_grad_(False)
    backbone = fused.backbone if isinstance(fused, FeatureExtractor) else fused
    backbone.is_fused = True
    return fused


def _pairs_behind(module: nn.Module) -> list[tuple[str, str]]:
    """Name the pairs of children that are a product and the norm behind it."""
    pairs = list(getattr(module, "norms_behind", ()))
    if isinstance(module, nn.Sequential):
        for (first, one), (second, other) in pairwise(module.named_children()):
            if isinstance(one, _Product) and isinstance(other, BatchNorm):
                pairs.append((first, second))
    return [(one, two) for one, two in pairs if isinstance(module.get_submodule(two), BatchNorm)]


def _fold(module: nn.Module, norm: str, *, product: nn.Module, is_ahead: bool) -> None:
    assert isinstance(product, _Product)
    # Padding would insert zeros in place of the norm's shift.
    assert not is_ahead or (isinstance(product, nn.Conv2d) and product.padding == (0, 0))
    bias: Tensor | None = None if product.bias is None else product.bias.double()
    fold = fold_norm_ahead if is_ahead else fold_norm_behind
    with torch.no_grad():
        weight, bias = fold(product.weight.double(), bias, module.get_submodule(norm))
        # Into the old tensor, which keeps its type and its memory format.
        product.weight.copy_(weight)
    assert bias is not None
    product.bias = nn.Parameter(bias.detach().to(product.weight.dtype))
    module.set_submodule(norm, nn.Identity())

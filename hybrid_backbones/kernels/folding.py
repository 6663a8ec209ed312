"""Folding batch norms into the convolutions and matrices beside them, for inference."""

import copy
from itertools import pairwise
from typing import TypeVar

from torch import Tensor, nn

from hybrid_backbones.backbone import Backbone, FeatureExtractor

Network = TypeVar("Network", Backbone, FeatureExtractor)
_Norm = nn.BatchNorm1d | nn.BatchNorm2d
_Product = nn.Conv2d | nn.Linear


def fuse(model: Network) -> Network:
    """Copy a network for inference, with each batch norm folded into what stands beside it.

    Norms behind a convolution or a matrix become part of it, and CMT's norm in front of a 1x1
    convolution part of that. CMT's norms behind a GELU and in front of padding stay as they are.
    Swin and MoA-Transformer have no batch norms; their copies are frozen all the same.

    Args:
        model: The network; left as it is.

    Returns:
        A frozen copy in evaluation mode with the same outputs, which refuses to train and to load
        published checkpoints.
    """
    fused = copy.deepcopy(model).eval()
    for module in list(fused.modules()):
        for before, norm in _pairs_behind(module):
            _fold_behind(module, before, norm)
        for norm, after in getattr(module, "norms_ahead", ()):
            _fold_ahead(module, norm, after)
    fused.requires_grad_(False)
    backbone = fused.backbone if isinstance(fused, FeatureExtractor) else fused
    backbone.is_fused = True
    return fused


def norm_as_affine(norm: _Norm) -> tuple[Tensor, Tensor]:
    """Give scale and shift (C,) of a batch norm in evaluation, in double precision."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _pairs_behind(module: nn.Module) -> list[tuple[str, str]]:
    """Name the children that are a product and the norm behind it."""
    pairs = list(getattr(module, "norms_behind", ()))
    if isinstance(module, nn.Sequential):
        for (first, one), (second, other) in pairwise(module.named_children()):
            if isinstance(one, _Product) and isinstance(other, _Norm):
                pairs.append((first, second))
    return [(one, two) for one, two in pairs if isinstance(module.get_submodule(two), _Norm)]


def _fold_behind(module: nn.Module, before: str, norm: str) -> None:
    product, behind = module.get_submodule(before), module.get_submodule(norm)
    assert isinstance(product, _Product)
    assert isinstance(behind, _Norm)
    scale, shift = norm_as_affine(behind)
    weight = product.weight.double() * _column(scale, product.weight)
    bias = shift if product.bias is None else product.bias.double() * scale + shift
    _replace(module, norm, product=product, weight=weight, bias=bias)


def _fold_ahead(module: nn.Module, norm: str, after: str) -> None:
    ahead, product = module.get_submodule(norm), module.get_submodule(after)
    if not isinstance(ahead, _Norm):
        return
    assert isinstance(product, nn.Conv2d)
    # Padding would bring zeros in where the norm's shift should be.
    assert product.padding == (0, 0)
    scale, shift = norm_as_affine(ahead)
    weight = product.weight.double()
    bias = (weight * shift[None, :, None, None]).sum((1, 2, 3))
    if product.bias is not None:
        bias = bias + product.bias.double()
    weight = weight * scale[None, :, None, None]
    _replace(module, norm, product=product, weight=weight, bias=bias)


def _replace(
    module: nn.Module, norm: str, *, product: _Product, weight: Tensor, bias: Tensor
) -> None:
    # Into the old tensor, which keeps its type and its layout in memory.
    product.weight.data.copy_(weight)
    product.bias = nn.Parameter(bias.to(product.weight.dtype))
    module.set_submodule(norm, nn.Identity())


def _column(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (weight.ndim - 1))

"""Test-time augmentation: flips and quarter turns, and the mean or variance over them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

Augmentation = Literal["none", "flips", "d4"]


@dataclass(frozen=True, slots=True)
class TTATransform:
    """A flip of images (N, C, H, W), followed by a transposition of rows and columns.

    Attributes:
        flipped: Axes that are flipped: 2 up-down, 3 left-right.
        transposed: Whether H and W are swapped afterwards.
    """

    flipped: tuple[int, ...]
    transposed: bool

    def apply(self, images: Tensor) -> Tensor:
        """Return the transformed images."""
        result = images.flip(self.flipped) if self.flipped else images
        # Networks may rely on the usual memory layout.
        return result.transpose(2, 3).contiguous() if self.transposed else result

    def undo(self, predictions: Tensor) -> Tensor:
        """Return predictions in the orientation of the original images."""
        result = predictions.transpose(2, 3) if self.transposed else predictions
        return result.flip(self.flipped) if self.flipped else result


_FLIP_AXES: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
_FLIPS = tuple(TTATransform(axes, transposed=False) for axes in _FLIP_AXES)

TTA_TRANSFORMS: Mapping[Augmentation, tuple[TTATransform, ...]] = MappingProxyType(
    {
        "none": _FLIPS[:1],
        "flips": _FLIPS,
        # The dihedral group of the square has 8 elements: with a transposition, flips become turns.
        "d4": (*_FLIPS, *(TTATransform(axes, transposed=True) for axes in _FLIP_AXES)),
    }
)
"""Transforms of each test-time augmentation, the identity first."""


def tta_mean(
    tta_transforms: tuple[TTATransform, ...],
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    tta_batch: int,
) -> Tensor:
    """Average predictions over test-time augmentations.

    Args:
        tta_transforms: The transforms.
        predict: Maps images (N, C, H, W) to probabilities (N, K, H, W).
        images: (N, C, H, W).
        tta_batch: Transforms in one forward pass.
    """
    total: Tensor | None = None
    for probabilities in _predict_each(tta_transforms, predict, images, tta_batch=tta_batch):
        total = probabilities if total is None else total + probabilities
    if total is None:
        raise ValueError("test-time augmentation needs at least one transform")
    return total if len(tta_transforms) == 1 else total / len(tta_transforms)


def tta_variance(
    tta_transforms: tuple[TTATransform, ...],
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    tta_batch: int,
) -> Tensor:
    """Return the mean, as `tta_mean`, with the variance over the transforms as the last plane.

    The variance is half the sum of the variances of the classes. With two classes this is the
    variance of either class, at most 0.25. With more classes it is at most 0.5.

    Returns:
        (N, K + 1, H, W).
    """
    total: Tensor | None = None
    squares: Tensor | None = None
    for probabilities in _predict_each(tta_transforms, predict, images, tta_batch=tta_batch):
        total = probabilities if total is None else total + probabilities
        square = probabilities.square().sum(dim=1, keepdim=True)
        squares = square if squares is None else squares + square
    if total is None or squares is None:
        raise ValueError("test-time augmentation needs at least one transform")
    count = len(tta_transforms)
    mean = total if count == 1 else total / count
    variance = 0.5 * (squares / count - mean.square().sum(dim=1, keepdim=True))
    return torch.cat([mean, variance.clamp_min(0)], dim=1)


def _predict_each(
    tta_transforms: tuple[TTATransform, ...],
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    tta_batch: int,
) -> Iterator[Tensor]:
    """Yield the prediction of each transform in the original orientation."""
    for start in range(0, len(tta_transforms), tta_batch):
        group = tta_transforms[start : start + tta_batch]
        batch = [transform.apply(images) for transform in group]
        predictions = predict(batch[0] if len(batch) == 1 else torch.cat(batch)).chunk(len(group))
        for transform, prediction in zip(group, predictions, strict=True):
            yield transform.undo(prediction)

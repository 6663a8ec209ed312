"""The ways in which a square looks the same: mirrored, turned, both; and the mean over them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

Augmentation = Literal["none", "flips", "d4"]


@dataclass(frozen=True, slots=True)
class TTATransform:
    """One way of looking at images (N, C, H, W): axes mirrored, then rows and columns swapped.

    Attributes:
        mirrored: Axes that are mirrored: 2 up-down, 3 left-right.
        swapped: Whether H and W change places afterwards.
    """

    mirrored: tuple[int, ...]
    swapped: bool

    def apply(self, images: Tensor) -> Tensor:
        """Look at images this way."""
        seen = images.flip(self.mirrored) if self.mirrored else images
        # Networks may count on the usual order in memory.
        return seen.transpose(2, 3).contiguous() if self.swapped else seen

    def undo(self, answers: Tensor) -> Tensor:
        """Turn answers back to where the images were."""
        straight = answers.transpose(2, 3) if self.swapped else answers
        return straight.flip(self.mirrored) if self.mirrored else straight


_MIRRORINGS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
_FLIPS = tuple(TTATransform(axes, swapped=False) for axes in _MIRRORINGS)

TTA_TRANSFORMS: Mapping[Augmentation, tuple[TTATransform, ...]] = MappingProxyType(
    {
        "none": _FLIPS[:1],
        "flips": _FLIPS,
        # The dihedral group of the square, of 8 elements: the other four are turns by a quarter.
        "d4": (*_FLIPS, *(TTATransform(axes, swapped=True) for axes in _MIRRORINGS)),
    }
)
"""For each test-time augmentation the ways of looking at a image, the plain one first."""


def average_over(
    tta_transforms: tuple[TTATransform, ...],
    estimate: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    together: int,
) -> Tensor:
    """Average what is said about images over several ways of looking at them.

    Args:
        tta_transforms: The ways.
        estimate: Maps images (N, C, H, W) to probabilities (N, K, H, W).
        images: (N, C, H, W).
        together: Ways in one forward pass.
    """
    total: Tensor | None = None
    for straight in _look(tta_transforms, estimate, images, together=together):
        total = straight if total is None else total + straight
    if total is None:
        raise ValueError("there is no way of looking at the images")
    return total if len(tta_transforms) == 1 else total / len(tta_transforms)


def spread_over(
    tta_transforms: tuple[TTATransform, ...],
    estimate: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    together: int,
) -> Tensor:
    """Average as `average_over`, and put the variance over the ways behind the classes.

    It is half the sum over the classes of their variances: of two classes the variance of either,
    0.25 at most; of more 0.5 at most.

    Returns:
        (N, K + 1, H, W).
    """
    total: Tensor | None = None
    squares: Tensor | None = None
    for straight in _look(tta_transforms, estimate, images, together=together):
        total = straight if total is None else total + straight
        square = straight.square().sum(dim=1, keepdim=True)
        squares = square if squares is None else squares + square
    if total is None or squares is None:
        raise ValueError("there is no way of looking at the images")
    count = len(tta_transforms)
    mean = total if count == 1 else total / count
    variance = 0.5 * (squares / count - mean.square().sum(dim=1, keepdim=True))
    return torch.cat([mean, variance.clamp_min(0)], dim=1)


def _look(
    tta_transforms: tuple[TTATransform, ...],
    estimate: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    together: int,
) -> Iterator[Tensor]:
    """Give what is said about images, turned back, one way of looking after the other."""
    for start in range(0, len(tta_transforms), together):
        group = tta_transforms[start : start + together]
        views = [tta_transform.apply(images) for tta_transform in group]
        answers = estimate(views[0] if len(views) == 1 else torch.cat(views)).chunk(len(group))
        for tta_transform, answer in zip(group, answers, strict=True):
            yield tta_transform.undo(answer)

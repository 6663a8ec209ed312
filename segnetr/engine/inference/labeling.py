"""From probabilities to labels, of one network or of several that answer together."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Combination = Literal["mean", "vote"]
Store = Callable[[int, Tensor], None]
"""Takes in the number of a class and its probabilities (H, W)."""


def label_pixels(
    answers: Sequence[Tensor],
    grid: tuple[int, int],
    *,
    combination: Combination = "mean",
    background: float = 1.0,
    store: Store | None = None,
) -> Tensor:
    """Choose the class of each pixel; of equal ones the first.

    Class by class, so that a large image never needs all its probabilities at once.

    Args:
        answers: Probabilities (K, h, w) of each network; brought to the grid by linear
            interpolation.
        grid: (H, W) of the file.
        combination: "mean" of the probabilities, or "vote": each network has one voice for each
            pixel, and the mean decides where voices are equal.
        background: Factor on the probability of the background where a class is chosen; what is
            stored is without it.
        store: Called with each class and its probabilities, or its share of the voices.

    Returns:
        Class indices (H, W), uint8, where the answers are.
    """
    if combination == "vote" and len(answers) > 1:
        return _count_voices(answers, grid, background=background, store=store)
    return _choose(answers, grid, background=background, store=store)


def _choose(
    answers: Sequence[Tensor], grid: tuple[int, int], *, background: float, store: Store | None
) -> Tensor:
    device = answers[0].device
    labels = torch.zeros(grid, dtype=torch.uint8, device=device)
    is_higher = torch.empty(grid, dtype=torch.bool, device=device)
    highest: Tensor | None = None
    for index in range(len(answers[0])):
        probability = average_class(answers, index, grid)
        if store is not None:
            store(index, probability)
        if highest is None:
            highest = probability * background
            continue
        torch.gt(probability, highest, out=is_higher)
        # Classes come in rising order, so a later one that is higher is also the larger number:
        # five times as fast as writing it where the mask says so.
        torch.maximum(labels, is_higher.view(torch.uint8) * index, out=labels)
        torch.maximum(highest, probability, out=highest)
    return labels


def _count_voices(
    answers: Sequence[Tensor], grid: tuple[int, int], *, background: float, store: Store | None
) -> Tensor:
    voices = [_choose([answer], grid, background=background, store=None) for answer in answers]
    labels = torch.zeros(grid, dtype=torch.uint8, device=answers[0].device)
    highest = torch.full(grid, -1.0, device=answers[0].device)
    for index in range(len(answers[0])):
        count = torch.stack([voice == index for voice in voices]).sum(dim=0)
        if store is not None:
            store(index, count / len(answers))
        # Half of a mean is below one voice, so it only decides between equal counts; the factor
        # is shared out so that it stays so where the background's is above 1.
        factor = (background if index == 0 else 1.0) / max(1.0, background)
        score = count + 0.5 * factor * average_class(answers, index, grid)
        labels.masked_fill_(score > highest, index)
        torch.maximum(highest, score, out=highest)
    return labels


def average_class(answers: Sequence[Tensor], index: int, grid: tuple[int, int]) -> Tensor:
    """Give the mean over networks of a class's probability, brought to the grid: (H, W)."""
    total = _resize(answers[0][index], grid)
    for answer in answers[1:]:
        total = total + _resize(answer[index], grid)
    return total if len(answers) == 1 else total / len(answers)


def _resize(plane: Tensor, grid: tuple[int, int]) -> Tensor:
    if tuple(plane.shape) == grid:
        return plane
    return F.interpolate(plane[None, None], size=grid, mode="bilinear", align_corners=False)[0, 0]

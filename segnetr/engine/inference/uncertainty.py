"""Maps that say where a mask is not sure: entropy, and variance over views and networks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segnetr.engine.inference.labeling import average_class
from segnetr.engine.quality.probability_features import scale_answer

MOST_VARIANCE = 0.5
"""The largest variance there is; of two classes it is half of that."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Uncertainty:
    """Where a mask is not sure, on the grid of its file.

    Attributes:
        entropy: (H, W) or (X, Y, Z) float32, 0 to 1: 1 where all classes are equally probable.
        variance: Half the sum over the classes of the variance of their probabilities over all
            ways of looking and all networks, 0 to `MOST_VARIANCE`; None: there was one way only.
    """

    entropy: NDArray[np.float32]
    variance: NDArray[np.float32] | None = None


def map_entropy(
    answers: Sequence[Tensor], grid: tuple[int, int], *, temperatures: Sequence[float]
) -> Tensor:
    """Give the entropy of the mean of what networks say.

    Args:
        answers: Probabilities (K, h, w) of each network.
        grid: (H, W) of the file.
        temperatures: Of each network's probabilities.

    Returns:
        (H, W), 0 to 1.
    """
    scaled = [scale_answer(*pair) for pair in zip(answers, temperatures, strict=True)]
    classes = len(scaled[0])
    total = torch.zeros(grid, device=scaled[0].device)
    for index in range(classes):
        total += torch.special.entr(average_class(scaled, index, grid))
    return (total / math.log(classes)).clamp_(0, 1)


def map_variance(
    answers: Sequence[Tensor], grid: tuple[int, int], *, spreads: Sequence[Tensor]
) -> Tensor:
    """Give the variance over views and networks: the mean within networks, and that between them.

    Args:
        answers: As in `map_entropy`.
        grid: (H, W) of the file.
        spreads: Variance (1, h, w) over the views of each network; empty where each had one view.

    Returns:
        (H, W), 0 to `MOST_VARIANCE`.
    """
    total = torch.zeros(grid, device=answers[0].device)
    if spreads:
        total += average_class(spreads, 0, grid)
    if len(answers) > 1:
        for index in range(len(answers[0])):
            each = torch.stack([average_class([answer], index, grid) for answer in answers])
            total += 0.5 * each.var(dim=0, correction=0)
    return total.clamp_(0, MOST_VARIANCE)

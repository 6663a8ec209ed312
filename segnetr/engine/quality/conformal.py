"""Intervals that hold the ground truth as often as they say, from errors on cases not fitted on.

If the case to come is drawn as the calibration cases were, an interval of the k-th smallest of n
errors, k = ceil((n + 1) * level), holds its value with at least that probability, whatever the
model. Errors of a jackknife (each case predicted by the model fitted without it) keep this nearly.

Source:
    Lei et al., Distribution-Free Predictive Inference for Regression, JASA 2018, arXiv:1604.04173,
    sections 2.2 (split), 5.2 (errors relative to what is expected); Barber et al., Predictive
    Inference with the Jackknife+, Ann. Statist. 2021, arXiv:1905.02928.
"""

import math
from collections.abc import Sequence

import numpy as np

LEVELS = (0.9, 0.8)
"""Levels of an interval that are aimed at; the second where cases are too few for the first."""


def choose_level(cases: int) -> float | None:
    """Give the highest of `LEVELS` that so many errors can promise: from 9 cases 0.9, from 4 0.8.

    Returns:
        None where not even the lowest can be promised.
    """
    return next((level for level in LEVELS if _find_rank(cases, level) <= cases), None)


def find_radius(errors: Sequence[float], level: float) -> float:
    """Give the error that the next case stays below with this probability.

    Args:
        errors: Of the calibration cases, 0 or above.
        level: Probability, 0 to 1.

    Raises:
        ValueError: If there are too few errors for the level.
    """
    rank = _find_rank(len(errors), level)
    if rank > len(errors):
        raise ValueError(f"{len(errors)} errors cannot promise {level:g}")
    return float(np.sort(np.asarray(errors, dtype=np.float64))[rank - 1])


def _find_rank(cases: int, level: float) -> int:
    # 10 * 0.9 is a little above 9 in binary.
    return math.ceil((cases + 1) * level - 1e-9)

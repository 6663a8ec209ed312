"""Conformal prediction intervals from errors on held-out cases.

If a new case is drawn from the distribution of the calibration cases, an interval of the k-th
smallest of n errors, k = ceil((n + 1) * level), covers its value with at least that probability,
for any model. Jackknife errors (each case predicted by a model fitted without it) nearly keep this
guarantee.

Source:
    Lei et al., Distribution-Free Predictive Inference for Regression, JASA 2018, arXiv:1604.04173,
    sections 2.2 (split), 5.2 (errors relative to what is expected); Barber et al., Predictive
    Inference with the Jackknife+, Ann. Statist. 2021, arXiv:1905.02928.
"""

import math
from collections.abc import Sequence

import numpy as np

LEVELS = (0.9, 0.8)
"""Coverage levels, best first. The second is used if there are too few cases for the first."""


def choose_level(cases: int) -> float | None:
    """Return the highest of `LEVELS` that this many errors guarantee: 0.9 from 9 cases, 0.8 from 4.

    Returns:
        None if there are too few cases for the lowest level.
    """
    return next((level for level in LEVELS if _find_rank(cases, level) <= cases), None)


def find_radius(errors: Sequence[float], level: float) -> float:
    """Return the error that the next case stays below with this probability.

    Args:
        errors: Of the calibration cases, 0 or above.
        level: Probability, 0 to 1.

    Raises:
        ValueError: If there are too few errors for the level.
    """
    rank = _find_rank(len(errors), level)
    if rank > len(errors):
        raise ValueError(f"{len(errors)} errors are too few for a level of {level:g}")
    return float(np.sort(np.asarray(errors, dtype=np.float64))[rank - 1])


def _find_rank(cases: int, level: float) -> int:
    # 10 * 0.9 is a little above 9 in binary.
    return math.ceil((cases + 1) * level - 1e-9)

"""Spearman's rank correlation."""

from collections.abc import Sequence

import numpy as np

_MIN_CASES = 3


def correlate_ranks(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, -1 to 1. Ties get their mean rank.

    Args:
        first: One number per case.
        second: Another number per case, in the same order.

    Returns:
        None for fewer than three cases, or if all values of one argument are equal.
    """
    if len(first) < _MIN_CASES or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    from scipy.stats import spearmanr  # importing scipy.stats takes most of a second

    return float(spearmanr(first, second).statistic)

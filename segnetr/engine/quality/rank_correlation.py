"""Whether two numbers put cases into the same order."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

_FEWEST = 3


def correlate_ranks(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Give Spearman's rank correlation, -1 to 1, ties at their mean rank.

    Args:
        first: One number for each case.
        second: Another one, in the same order.

    Returns:
        None for fewer than three cases, or where all values of one of them are equal.
    """
    if len(first) < _FEWEST:
        return None
    ranks = [stats.rankdata(values) for values in (first, second)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])

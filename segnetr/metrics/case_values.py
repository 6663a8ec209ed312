"""Tables of scores per case, and pairs of such tables."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from segnetr.metrics.registry import get_metric
from segnetr.metrics.score import Score
from segnetr.metrics.summary import MEAN

#: Value by metric, class and case; None: undefined.
CaseTable = Mapping[str, Mapping[str, Mapping[str, float | None]]]
_Pair = tuple[dict[str, float], dict[str, float]]


def tabulate_cases(scores: Iterable[Score]) -> CaseTable:
    """Return the values of scores as {metric: {class: {case: value}}}."""
    table: dict[str, dict[str, dict[str, float | None]]] = defaultdict(lambda: defaultdict(dict))
    for score in scores:
        table[score.metric][score.class_name][score.case_id] = score.value
    return {metric: dict(classes) for metric, classes in table.items()}


def pair_cases(first: CaseTable, second: CaseTable, *, metric: str) -> dict[str, _Pair]:
    """Pair the values of two tables for each class.

    If the ground truth and both predictions are empty, the value is undefined in both tables and
    the case is excluded. If only one value is undefined, that prediction was correctly empty and
    the other is a false alarm. Excluding the case would hide the false alarm, so the undefined
    value counts as perfect (a distance of 0, a share of 1).

    Args:
        first: Values of the first network.
        second: Values of the second network, with the same cases and classes.
        metric: A metric that both tables contain.

    Returns:
        The values by case of (first, second), for each class. With several classes, "mean" holds
        the mean of each case over its classes.
    """
    perfect = get_metric(metric).perfect
    pairs: dict[str, _Pair] = {}
    collected: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for class_name, ours in first[metric].items():
        pairs[class_name] = {}, {}
        for case, both in _pair_values(ours, second[metric][class_name], perfect=perfect):
            for side, found in zip(pairs[class_name], both, strict=True):
                side[case] = found
            collected[case].append(both)
    if len(pairs) > 1:
        means = {case: np.mean(found, axis=0).tolist() for case, found in collected.items()}
        pairs[MEAN] = (
            {case: mean[0] for case, mean in means.items()},
            {case: mean[1] for case, mean in means.items()},
        )
    return pairs


def _pair_values(
    ours: Mapping[str, float | None], theirs: Mapping[str, float | None], *, perfect: float
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield each case with both values; skip the cases that are undefined in both."""
    for case, value in ours.items():
        other = theirs[case]
        if value is not None or other is not None:
            yield case, (perfect if value is None else value, perfect if other is None else other)

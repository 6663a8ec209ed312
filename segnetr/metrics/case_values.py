"""Scores as tables of cases, and two such tables side by side."""

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
    """Give the values of scores as {metric: {class: {case: value}}}."""
    table: dict[str, dict[str, dict[str, float | None]]] = defaultdict(lambda: defaultdict(dict))
    for score in scores:
        table[score.metric][score.class_name][score.case_id] = score.value
    return {metric: dict(classes) for metric, classes in table.items()}


def is_lower_better(metric: str) -> bool:
    """Return whether a smaller value of a metric, by its stored name, is a better one."""
    return not get_metric(metric).higher_is_better


def pair_cases(first: CaseTable, second: CaseTable, *, metric: str) -> dict[str, _Pair]:
    """Put the values of two tables beside each other, class by class.

    Where ground truth and both predictions are empty, a distance is undefined in both and the
    case is left
    out. Where only one of them is undefined, that one was rightly empty and the other a false
    alarm: leaving the case out would hide the false alarm, so the empty one counts as perfect (a
    distance of 0, a share of 1).

    Args:
        first: Of the first network.
        second: Of the second one, with the same cases and classes.
        metric: That both have.

    Returns:
        (first, second) value by case, by class; where there are several classes also of "mean",
        each case's mean over its classes.
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

"""Select the best, the median and the worst cases for a report."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segnetr.metrics import Score

Rank = Literal["best", "median", "worst"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedCase:
    """A case that a report shows.

    Attributes:
        rank: Its group.
        number: Position in its group, from 1.
        case_id: The case.
        value: Its score, the mean over the classes.
    """

    rank: Rank
    number: int
    case_id: str
    value: float


def select_cases(
    scores: Iterable[Score], *, metric: str = "dice", each: int = 3
) -> list[SelectedCase]:
    """Select the best, the median and the worst cases, each case at most once.

    If there are few cases, each round selects the worst first, then the best, then the median.

    Args:
        scores: Scores of all cases; higher is better.
        metric: Metric of the ranking; cases in which it is undefined are skipped.
        each: Number of cases of each rank.

    Returns:
        The best case first, the worst last; equal scores in the order of the case ids.
    """
    means = _average_by_case(scores, metric)
    ranking = sorted(means, key=lambda case: (-means[case], case))
    middle = (len(ranking) - 1) / 2
    queues: dict[Rank, list[int]] = {
        "worst": list(range(len(ranking)))[::-1],
        "best": list(range(len(ranking))),
        "median": sorted(range(len(ranking)), key=lambda index: abs(index - middle)),
    }
    chosen: dict[int, Rank] = {}
    for _ in range(each):
        for rank, queue in queues.items():
            index = next((index for index in queue if index not in chosen), None)
            if index is not None:
                chosen[index] = rank
    selected: list[SelectedCase] = []
    for index in sorted(chosen):
        rank, case = chosen[index], ranking[index]
        number = 1 + sum(other.rank == rank for other in selected)
        selected.append(SelectedCase(rank=rank, number=number, case_id=case, value=means[case]))
    return selected


def _average_by_case(scores: Iterable[Score], metric: str) -> dict[str, float]:
    """Return the mean of a metric over the classes of each case in which it is defined."""
    values: dict[str, list[float]] = {}
    for score in scores:
        if score.metric == metric and score.value is not None:
            values.setdefault(score.case_id, []).append(score.value)
    return {case: float(np.mean(found)) for case, found in values.items()}

"""Which cases are worth showing."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segnetr.metrics import Score

Rank = Literal["best", "median", "worst"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedCase:
    """A case chosen to be shown.

    Attributes:
        rank: Where it stands among all.
        place: 1 for the first of its rank.
        case_id: The case.
        value: Its score, the mean over the classes.
    """

    rank: Rank
    place: int
    case_id: str
    value: float


def select_cases(
    scores: Iterable[Score], *, metric: str = "dice", each: int = 3
) -> list[SelectedCase]:
    """Choose the best, the median and the worst cases, none of them twice.

    With few cases the worst are chosen first, then the best, then the median, in turns.

    Args:
        scores: Scores of all cases; higher is better.
        metric: By which they are ranked; cases where it is undefined are passed over.
        each: Cases of each rank.

    Returns:
        Best first, the very worst last; equal scores in the order of the case ids.
    """
    values: dict[str, list[float]] = {}
    for score in scores:
        if score.metric == metric and score.value is not None:
            values.setdefault(score.case_id, []).append(score.value)
    means = {case: float(np.mean(found)) for case, found in values.items()}
    ranking = sorted(means, key=lambda case: (-means[case], case))
    middle = (len(ranking) - 1) / 2
    queues: dict[Rank, list[int]] = {
        "worst": list(range(len(ranking)))[::-1],
        "best": list(range(len(ranking))),
        "median": sorted(range(len(ranking)), key=lambda place: abs(place - middle)),
    }
    chosen: dict[int, Rank] = {}
    for _ in range(each):
        for rank, queue in queues.items():
            place = next((place for place in queue if place not in chosen), None)
            if place is not None:
                chosen[place] = rank
    selected_cases: list[SelectedCase] = []
    for place in sorted(chosen):
        rank, case = chosen[place], ranking[place]
        order = 1 + sum(pick.rank == rank for pick in selected_cases)
        selected_cases.append(SelectedCase(rank=rank, place=order, case_id=case, value=means[case]))
    return selected_cases

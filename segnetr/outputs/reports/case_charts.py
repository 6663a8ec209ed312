"""Scores of cases as box plots: class by class, and by what is known of the cases."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from segnetr.metrics import Score
from segnetr.metrics.case_values import tabulate_cases
from segnetr.outputs.charts.box_plot import MOST_BOXES, Box, BoxChart
from segnetr.outputs.tables.case_records import CaseRecord

_METRICS = {"dice": "Dice", "hd95_mm": "HD95 (mm)", "hd95_px": "HD95 (px)"}
_MOST_GROUPS = 12
_MOST_FACTS = 4


def chart_classes(scores: Sequence[Score]) -> list[BoxChart]:
    """Give box plots of Dice and HD95 by class."""
    table = tabulate_cases(scores)
    charts = []
    for metric, title in _METRICS.items():
        boxes = []
        for name, cases in list(table.get(metric, {}).items())[:MOST_BOXES]:
            values = [value for value in cases.values() if value is not None]
            if values:
                boxes.append(Box(name=name, values=values))
        if boxes:
            charts.append(
                BoxChart(
                    title=f"{title} by class",
                    label=f"{title} of a case",
                    boxes=boxes,
                    is_share=metric == "dice",
                )
            )
    return charts


def chart_groups(scores: Sequence[Score], records: Sequence[CaseRecord]) -> list[BoxChart]:
    """Give box plots of Dice by each fact that divides the cases into 2 to 12 groups.

    Dice is the mean over the classes of a case. A fact that divides them as another one did is
    passed over.
    """
    collected: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        if score.metric == "dice" and score.value is not None:
            collected[score.case_id].append(score.value)
    means = {case: float(np.mean(found)) for case, found in collected.items()}
    charts: list[BoxChart] = []
    seen: set[frozenset[tuple[str, str]]] = set()
    for fact in dict.fromkeys(name for record in records for name in record.facts):
        word = {r.case_id: r.facts[fact] for r in records if fact in r.facts and r.case_id in means}
        groups = _divide(word, means)
        if not _is_division(groups) or frozenset(word.items()) in seen:
            continue
        seen.add(frozenset(word.items()))
        charts.append(
            BoxChart(
                title=f"Dice by {fact}",
                label="Dice of a case",
                boxes=[Box(name=name, values=groups[name]) for name in sorted(groups)],
                is_share=True,
            )
        )
    return charts[:_MOST_FACTS]


def _divide(word: Mapping[str, str], means: Mapping[str, float]) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for case, name in word.items():
        groups[name].append(means[case])
    return groups


def _is_division(groups: Mapping[str, Sequence[float]]) -> bool:
    """Whether groups say something: a fact that is another one in each case does not."""
    return 2 <= len(groups) <= _MOST_GROUPS and max(map(len, groups.values())) > 1

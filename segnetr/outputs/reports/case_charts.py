"""Charts of single cases: box plots of scores, Bland-Altman plots of sizes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from segnetr.metrics import Score
from segnetr.metrics.case_values import tabulate_cases
from segnetr.metrics.registry import title_metric
from segnetr.metrics.structure_sizes import Ejection, Size, measure_agreement
from segnetr.outputs.charts.box_plot import MOST_BOXES, Box, BoxChart
from segnetr.outputs.charts.dot_plot import Dot, DotChart
from segnetr.outputs.tables.case_records import CaseRecord

_METRICS = ("dice", "hd95_mm", "hd95_px")
_MOST_GROUPS = 12
_MOST_FACTS = 4


def chart_classes(scores: Sequence[Score]) -> list[BoxChart]:
    """Return box plots of Dice and HD95 by class."""
    table = tabulate_cases(scores)
    charts = []
    for metric in _METRICS:
        title, boxes = title_metric(metric), []
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
    """Return box plots of Dice by each attribute that divides the cases into 2 to 12 groups.

    Dice is the mean over the classes of a case. An attribute with the same groups as an earlier
    one is skipped.
    """
    means = _average_dice(scores)
    charts: list[BoxChart] = []
    seen: set[frozenset[tuple[str, str]]] = set()
    for fact in dict.fromkeys(name for record in records for name in record.facts):
        group_of = {
            r.case_id: r.facts[fact] for r in records if fact in r.facts and r.case_id in means
        }
        groups = _group_values(group_of, means)
        if not _is_informative(groups) or frozenset(group_of.items()) in seen:
            continue
        seen.add(frozenset(group_of.items()))
        charts.append(
            BoxChart(
                title=f"Dice by {fact}",
                label="Dice of a case",
                boxes=[Box(name=name, values=groups[name]) for name in sorted(groups)],
                is_share=True,
            )
        )
    return charts[:_MOST_FACTS]


def chart_agreement(sizes: Sequence[Size], ejections: Sequence[Ejection]) -> list[DotChart]:
    """Return Bland-Altman plots: ejection fractions first, then the sizes of each class.

    Areas of images without spacing are shown as a share of the image, since image sizes differ.
    """
    return _chart_ejections(ejections) + _chart_sizes(sizes)


def _average_dice(scores: Sequence[Score]) -> dict[str, float]:
    """Return the mean Dice over the classes of each case."""
    collected: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        if score.metric == "dice" and score.value is not None:
            collected[score.case_id].append(score.value)
    return {case: float(np.mean(values)) for case, values in collected.items()}


def _chart_ejections(ejections: Sequence[Ejection]) -> list[DotChart]:
    """Return a Bland-Altman plot of the ejection fractions of each class."""
    charts: list[DotChart] = []
    for name in dict.fromkeys(ejection.class_name for ejection in ejections):
        pairs = [
            (e.patient_id, e.true_fraction, e.predicted_fraction)
            for e in ejections
            if e.class_name == name
        ]
        known = [(patient, a, b) for patient, a, b in pairs if a is not None and b is not None]
        charts += _chart_pairs(f"Ejection fraction, {name}", "%", known)
    return charts


def _chart_sizes(sizes: Sequence[Size]) -> list[DotChart]:
    """Return a Bland-Altman plot of the sizes of each class."""
    charts: list[DotChart] = []
    for name in dict.fromkeys(size.class_name for size in sizes):
        of_class = [size for size in sizes if size.class_name == name]
        unit = of_class[0].unit
        is_share = unit == "px"
        pairs_of_size = [
            (
                size.case_id,
                100 * size.true / size.whole if is_share else size.true,
                100 * size.predicted / size.whole if is_share else size.predicted,
            )
            for size in of_class
        ]
        title = f"{'Volume' if unit == 'ml' else 'Area'}, {name}"
        charts += _chart_pairs(title, "% of the image" if is_share else unit, pairs_of_size)
    return charts


def _group_values(
    group_of: Mapping[str, str], values: Mapping[str, float]
) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for case, name in group_of.items():
        groups[name].append(values[case])
    return groups


def _is_informative(groups: Mapping[str, Sequence[float]]) -> bool:
    """Return whether there are 2 to 12 groups, and not every case is a group of its own."""
    return 2 <= len(groups) <= _MOST_GROUPS and max(map(len, groups.values())) > 1


def _chart_pairs(
    title: str, unit: str, pairs: Sequence[tuple[str, float, float]]
) -> list[DotChart]:
    """Return a Bland-Altman plot of (name, true, predicted); nothing without pairs."""
    if not pairs:
        return []
    agreement = measure_agreement([a for _, a, _ in pairs], [b for _, _, b in pairs])
    levels = [(f"bias {agreement.bias:+.3g}", agreement.bias)]
    words = f"bias {agreement.bias:+.3g} {unit} over {agreement.pairs}"
    if agreement.low is not None and agreement.high is not None:
        levels += [
            (f"+1.96 SD {agreement.high:+.3g}", agreement.high),
            (f"-1.96 SD {agreement.low:+.3g}", agreement.low),
        ]
        words += f", limits of agreement {agreement.low:+.3g} to {agreement.high:+.3g}"
    dots = [
        Dot(name=f"{name}: ground truth {a:.3g}, prediction {b:.3g}", x=(a + b) / 2, y=b - a)
        for name, a, b in pairs
    ]
    return [
        DotChart(
            title=title,
            x_label=f"mean of ground truth and prediction ({unit})",
            y_label=f"prediction - ground truth ({unit})",
            dots=dots,
            levels=levels,
            words=words,
        )
    ]

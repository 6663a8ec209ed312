"""The scores of each fold of a cross-validation and over all folds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

from segnetr.metrics import Summary, select_summary
from segnetr.metrics.registry import title_metric
from segnetr.outputs.reports.rendering import HtmlTable
from segnetr.outputs.tables.scores import show_interval, show_number

_METRICS = ("dice", "iou", "hd95_mm", "hd95_px")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldScores:
    """The scores of one fold.

    Attributes:
        fold: Its number, from 1.
        cases: Number of scored cases, none of which the network of the fold was trained on.
        steps: Optimizer steps of its training.
        summaries: Its scores.
    """

    fold: int
    cases: int
    steps: int
    summaries: tuple[Summary, ...]


def fold_rows(folds: Sequence[FoldScores], overall: Sequence[Summary]) -> list[dict[str, str]]:
    """Return a row for each fold, one for the standard deviation of their means, one for all cases.

    The means are those of the row "mean" over classes, or of the only class.
    """
    known = {row.metric for row in overall}
    metrics = {name: title_metric(name) for name in _METRICS if name in known}
    rows = [
        {
            "fold": str(item.fold),
            "cases": str(item.cases),
            "steps": str(item.steps),
            **{
                title: show_number(_find_mean(item.summaries, name), metric=name)
                for name, title in metrics.items()
            },
        }
        for item in folds
    ]
    deviations, totals = {}, {}
    for name, title in metrics.items():
        deviations[title] = show_number(_measure_deviation(folds, name), metric=name)
        row = select_summary(overall, name)
        mean, deviation = (show_number(value, metric=name) for value in (row.mean, row.std))
        totals[title] = f"{mean} (std {deviation}, 95 %: {show_interval(row)})"
    cases = str(sum(item.cases for item in folds))
    rows.append({"fold": "std of the fold means", "cases": "", "steps": "", **deviations})
    rows.append({"fold": "all cases", "cases": cases, "steps": "", **totals})
    return rows


def tabulate_folds(folds: Sequence[FoldScores], overall: Sequence[Summary]) -> HtmlTable:
    """Return `fold_rows` as a table for a page; an empty one without folds."""
    rows = fold_rows(folds, overall) if folds else []
    return HtmlTable(
        headers=list(rows[0]) if rows else [],
        rows=[list(row.values()) for row in rows],
        text_columns=("fold",),
    )


def _measure_deviation(folds: Sequence[FoldScores], metric: str) -> float | None:
    """Return the standard deviation of the means of the folds; None with fewer than two."""
    means = [_find_mean(item.summaries, metric) for item in folds]
    defined = [mean for mean in means if mean is not None]
    return stdev(defined) if len(defined) > 1 else None


def _find_mean(summaries: Sequence[Summary], metric: str) -> float | None:
    if all(row.metric != metric for row in summaries):
        return None
    return select_summary(summaries, metric).mean

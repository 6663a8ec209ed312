"""The scores of each fold beside those over all folds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

from segnetr.metrics import Summary, select_summary
from segnetr.outputs.reports.elements import align_number, draw_table
from segnetr.outputs.tables.scores import show_interval, show_number

_METRICS = ("dice", "iou", "hd95_mm", "hd95_px")
_NAMES = {"dice": "Dice", "iou": "IoU", "hd95_mm": "HD95 (mm)", "hd95_px": "HD95 (px)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldScores:
    """What one fold came to.

    Attributes:
        fold: Its number, from 1.
        cases: Cases scored, none of which the fold's network was trained on.
        steps: Optimizer steps of its training.
        summaries: Its scores.
    """

    fold: int
    cases: int
    steps: int
    summaries: tuple[Summary, ...]


def fold_rows(folds: Sequence[FoldScores], overall: Sequence[Summary]) -> list[dict[str, str]]:
    """Give a row for each fold, one for the spread of their means, one over all cases.

    The means are those of the row "mean" over classes, or of the only class.
    """
    known = {row.metric for row in overall}
    metrics = [name for name in _METRICS if name in known]
    rows = [
        {
            "fold": str(item.fold),
            "cases": str(item.cases),
            "steps": str(item.steps),
            **{_NAMES[name]: _show_mean(item.summaries, name) for name in metrics},
        }
        for item in folds
    ]
    spread, total = {}, {}
    for name in metrics:
        means = [_find_mean(item.summaries, name) for item in folds]
        defined = [mean for mean in means if mean is not None]
        value = stdev(defined) if len(defined) > 1 else None
        spread[_NAMES[name]] = show_number(value, metric=name)
        row = select_summary(overall, name)
        mean, deviation = (show_number(value, metric=name) for value in (row.mean, row.std))
        total[_NAMES[name]] = f"{mean} (std {deviation}, 95 %: {show_interval(row)})"
    cases = str(sum(item.cases for item in folds))
    rows.append({"fold": "std of the folds' means", "cases": "", "steps": "", **spread})
    rows.append({"fold": "all cases", "cases": cases, "steps": "", **total})
    return rows


def draw_fold_table(folds: Sequence[FoldScores], overall: Sequence[Summary]) -> str:
    """Draw `fold_rows` as a table; nothing where there are no folds."""
    if not folds:
        return ""
    rows = fold_rows(folds, overall)
    head = "".join(f'<th scope="col"{align_number(name != "fold")}>{name}</th>' for name in rows[0])
    lines = []
    for row in rows:
        first, *cells = row.values()
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        lines.append(f'<tr><th scope="row">{first}</th>{numbers}</tr>')
    return draw_table(head, lines)


def _show_mean(summaries: Sequence[Summary], metric: str) -> str:
    return show_number(_find_mean(summaries, metric), metric=metric)


def _find_mean(summaries: Sequence[Summary], metric: str) -> float | None:
    if all(row.metric != metric for row in summaries):
        return None
    return select_summary(summaries, metric).mean

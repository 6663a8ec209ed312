"""The HTML report of a classification run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segnetr.metrics.classification_summary import ClassRow, ClassScore, ClassSummary
from segnetr.metrics.registry import title_metric
from segnetr.outputs.charts.classification import MOST_CLASSES, draw_confusions, draw_reliability
from segnetr.outputs.charts.interval_bar import draw_interval_bar
from segnetr.outputs.reports.rendering import HtmlTable, Tile, mark_svg, render_page
from segnetr.outputs.reports.training_report import TrainingReport
from segnetr.outputs.tables.classification import (
    CLASSIFICATION_RULES,
    describe_undefined,
    show_range,
    show_share,
)
from segnetr.storage.manifest import write_text_atomic

_CLASS_MEANS = ("auroc", "f1")
_TILES = ("accuracy", "balanced_accuracy", "auroc", "f1", "calibration_error")
_RULE_NAMES = {"decided": "Predicted class", "undefined": "Undefined", "interval": "Interval"}
_MOST_BARS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationReport(TrainingReport):
    """The content of the report of a classification run. All texts are plain.

    Attributes:
        summary: Scores; None: nothing was scored.
    """

    summary: ClassSummary | None = None


def write_classification_report(path: Path, report: ClassificationReport) -> None:
    """Write the page.

    Raises:
        WriteError: If it cannot be written. An existing page is then unchanged.
    """
    write_text_atomic(path, render_classification_report(report))


def render_classification_report(report: ClassificationReport) -> str:
    """Return the page as text."""
    summary = report.summary
    undefined = describe_undefined(summary) if summary else ()
    groups = "single cases"
    if summary and summary.groups < summary.cases:
        groups = f"{summary.groups} groups"
    return render_page(
        "classification_report.html.j2",
        report=report,
        title=report.title,
        subtitle=report.subtitle,
        notes=[*report.notes, *undefined],
        tiles=_list_tiles(summary.scores) if summary else (),
        groups=groups,
        score_table=_tabulate_scores(summary.scores if summary else ()),
        class_table=_tabulate_classes(summary.classes if summary else ()),
        confusion_chart=mark_svg(_draw_confusions(summary)),
        reliability_chart=mark_svg(draw_reliability(summary.bins) if summary else ""),
        line_charts=report.line_charts(),
        rules=_name_rules(summary) if summary else {},
    )


def _list_tiles(scores: Sequence[ClassScore]) -> list[Tile]:
    by_metric = {score.metric: score for score in scores}
    tiles = []
    for metric in _TILES:
        score = by_metric[metric]
        interval = "" if score.low is None else f"95 %: {show_range(score.low, score.high)}"
        tiles.append(Tile(name=title_metric(metric), value=show_share(score.value), range=interval))
    return tiles


def _title_score(metric: str) -> str:
    suffix = " (mean over classes)" if metric in _CLASS_MEANS else ""
    return title_metric(metric) + suffix


def _tabulate_scores(scores: Sequence[ClassScore]) -> HtmlTable:
    return HtmlTable(
        headers=("metric", "value", "95 % interval", "0 to 1"),
        rows=[
            [
                _title_score(score.metric),
                show_share(score.value),
                show_range(score.low, score.high),
                mark_svg(draw_interval_bar(score.value, score.low, score.high)),
            ]
            for score in scores
        ],
        text_columns=("metric", "0 to 1"),
    )


def _tabulate_classes(classes: Sequence[ClassRow]) -> HtmlTable:
    rows = []
    for row in classes:
        shares = (row.recall, row.specificity, row.precision, row.f1, row.auroc)
        bar = ""
        if len(classes) <= _MOST_BARS:
            bar = draw_interval_bar(row.auroc, row.auroc_low, row.auroc_high)
        rows.append(
            [
                row.class_name,
                str(row.cases),
                str(row.decided),
                *map(show_share, shares),
                show_range(row.auroc_low, row.auroc_high),
                mark_svg(bar),
            ]
        )
    return HtmlTable(
        headers=(
            "class",
            "cases",
            "predicted",
            "recall",
            "specificity",
            "precision",
            "F1",
            "AUROC",
            "95 % of AUROC",
            "0 to 1",
        ),
        rows=rows,
        text_columns=("class", "0 to 1"),
    )


def _draw_confusions(summary: ClassSummary | None) -> str:
    if summary is None or not 0 < len(summary.confusions) <= MOST_CLASSES:
        return ""
    return draw_confusions(summary.confusions, [row.class_name for row in summary.classes])


def _name_rules(summary: ClassSummary) -> dict[str, str]:
    shown = {score.metric for score in summary.scores} | set(_RULE_NAMES)
    return {
        _RULE_NAMES.get(key) or _title_score(key): text
        for key, text in CLASSIFICATION_RULES.items()
        if key in shown
    }

"""The HTML report of a segmentation run: what was trained, how well it performs, where it fails.

The page is a single file with style, curves and images. It has no script and no external address.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segnetr.config.schema.postprocessing import PostprocessingTrial
from segnetr.metrics import MEAN, Summary, select_summary
from segnetr.metrics.registry import get_metric, title_metric
from segnetr.outputs.charts.interval_bar import draw_interval_bar
from segnetr.outputs.reports.case_section import CaseSection, describe_cases
from segnetr.outputs.reports.figures import Figure, choose_within
from segnetr.outputs.reports.fold_table import FoldScores, tabulate_folds
from segnetr.outputs.reports.rendering import HtmlTable, Tile, group_figures, mark_svg, render_page
from segnetr.outputs.reports.training_report import TrainingReport
from segnetr.outputs.tables.scores import (
    SCORE_RULES,
    SummaryFile,
    is_length,
    show_interval,
    show_number,
)
from segnetr.storage.manifest import write_text_atomic

_TILE_METRICS = ("dice", "iou", "isic_jaccard")
_IMAGE_HINT = "; the image without outlines is on the left."
_SLICE_HINT = "; the buttons below a sheet of slices show single slices (the arrow keys move)."
_RULE_NAMES = {
    "scored": "Unit of scoring",
    "lengths": "Lengths",
    "both_empty": "Empty in ground truth and prediction",
    "missed": "False negative: only the ground truth has the structure",
    "false_alarm": "False positive: only the prediction has the structure",
    "border": "Border",
    "interval": "Interval",
    "dice_pooled": "Pooled Dice",
    "mean": "Mean over classes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport(TrainingReport):
    """The content of the report of a segmentation run. All texts are plain.

    Attributes:
        summaries: Scores; the page mentions it if there are none.
        folds: Scores of each fold of a cross-validation.
        tested: Scores of the ensemble of all folds on the test split.
        figures: Cases as images, in the order to show them. Figures whose titles agree up to a
            colon share one heading.
        cases: Variation of the scores, calibration, sizes and times.
        trials: Postprocessing steps that were tested on the validation cases.
    """

    summaries: Sequence[Summary] = ()
    folds: Sequence[FoldScores] = ()
    tested: SummaryFile | None = None
    figures: Sequence[Figure] = ()
    cases: CaseSection = field(default_factory=CaseSection)
    trials: Sequence[PostprocessingTrial] = ()


def write_run_report(path: Path, report: RunReport) -> None:
    """Write the page.

    Raises:
        WriteError: If it cannot be written. An existing page is then unchanged.
        ValueError: If a figure is not a PNG, JPEG or WebP file.
    """
    write_text_atomic(path, render_run_report(report))


def render_run_report(report: RunReport) -> str:
    """Return the page as text.

    Raises:
        ValueError: If a figure is not a PNG, JPEG or WebP file.
    """
    figures, omitted = choose_within(report.figures)
    tested = () if report.tested is None else report.tested.summaries
    return render_page(
        "run_report.html.j2",
        report=report,
        title=report.title,
        subtitle=report.subtitle,
        notes=[*report.notes, *omitted],
        tiles=_list_tiles(report.summaries),
        score_table=_tabulate_scores(report.summaries),
        count_table=_tabulate_counts(report.summaries),
        test_table=_tabulate_scores(tested),
        fold_table=tabulate_folds(report.folds, report.summaries),
        figure_groups=group_figures(figures),
        figure_hint=_choose_hint(figures),
        line_charts=report.line_charts(),
        trial_table=_tabulate_trials(report.trials),
        facts={**report.facts, **report.cases.times},
        rules={_RULE_NAMES[key]: text for key, text in SCORE_RULES.items()}
        if report.summaries
        else {},
        **describe_cases(report.cases),
    )


def _list_tiles(summaries: Sequence[Summary]) -> list[Tile]:
    """Return overlap, distance and the number of false negatives."""
    metrics = {row.metric for row in summaries}
    selected = [name for name in _TILE_METRICS if name in metrics]
    selected += sorted(name for name in metrics if get_metric(name).name == "hd95")
    tiles = []
    for metric in selected:
        row = select_summary(summaries, metric)
        interval = "" if row.low is None else f"95 %: {show_interval(row)}"
        name = title_metric(metric).partition(" (")[0]
        tiles.append(Tile(name=name, value=_with_unit(row), range=interval))
    if "dice" in metrics:
        row = select_summary(summaries, "dice")
        rest = f"of {row.cases} cases; {row.false_alarms} false positives"
        tiles.append(Tile(name="False negatives", value=str(row.missed), range=rest))
    return tiles


def _choose_hint(figures: Sequence[Figure]) -> str:
    are_volumes = [bool(figure.slices) for figure in figures]
    if all(are_volumes):
        return _SLICE_HINT
    return "." if any(are_volumes) else _IMAGE_HINT


def _tabulate_trials(trials: Sequence[PostprocessingTrial]) -> HtmlTable:
    rows = []
    for trial in trials:
        is_known = trial.low is not None and trial.high is not None
        interval = f"{trial.low:+.4f} to {trial.high:+.4f}" if is_known else "too few patients"
        used = "yes" if trial.taken else "no"
        rows.append([trial.step, f"{trial.gain:+.4f}", interval, str(trial.cases), used])
    return HtmlTable(
        headers=("step", "gain of Dice", "interval", "cases", "used"),
        rows=rows,
        text_columns=("step", "used"),
    )


def _tabulate_scores(summaries: Sequence[Summary]) -> HtmlTable:
    rows, starts, previous = [], [], ""
    for number, row in enumerate(summaries):
        is_new = row.class_name != previous
        if previous and is_new:
            starts.append(number)
        mean, std, median = (
            show_number(value, metric=row.metric) for value in (row.mean, row.std, row.median)
        )
        bar = "" if is_length(row.metric) else draw_interval_bar(row.mean, row.low, row.high)
        scored = f"{row.cases - row.undefined} of {row.cases}" if row.undefined else str(row.cases)
        rows.append(
            [
                _name_class(row.class_name) if is_new else "",
                title_metric(row.metric),
                mean,
                show_interval(row),
                mark_svg(bar),
                std,
                median,
                scored,
            ]
        )
        previous = row.class_name
    return HtmlTable(
        headers=("class", "metric", "mean", "95 % interval", "0 to 1", "std", "median", "cases"),
        rows=rows,
        text_columns=("class", "metric", "0 to 1"),
        group_starts=starts,
    )


def _tabulate_counts(summaries: Sequence[Summary]) -> HtmlTable:
    rows = [
        [
            _name_class(row.class_name),
            *map(str, (row.cases, row.missed, row.false_alarms, row.both_empty)),
        ]
        for row in summaries
        if row.metric == "dice" and row.class_name != MEAN
    ]
    return HtmlTable(
        headers=("class", "cases", "false negatives", "false positives", "empty in both"),
        rows=rows,
        text_columns=("class",),
        style="counts",
    )


def _name_class(name: str) -> str:
    return "mean over classes" if name == MEAN else name


def _with_unit(row: Summary) -> str:
    unit = row.metric.rpartition("_")[2] if is_length(row.metric) else ""
    return f"{show_number(row.mean, metric=row.metric)} {unit}".strip()

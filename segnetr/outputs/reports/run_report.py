"""One HTML file that says what was trained, how well it does, and where it fails.

The page holds everything: style, curves and images. It names no other address, runs no script
and opens from a disk without a network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from segnetr.config.schema.postprocessing import PostprocessingTrial
from segnetr.metrics import MEAN, Summary, select_summary
from segnetr.outputs.reports.case_section import (
    CaseSection,
    draw_calibration,
    draw_sizes,
    draw_spread,
)
from segnetr.outputs.reports.elements import (
    align_number,
    draw_charts,
    draw_facts,
    draw_figures,
    draw_list,
    draw_notes,
    draw_page,
    draw_settings,
    draw_table,
    draw_tile,
)
from segnetr.outputs.reports.figures import Figure, choose_within
from segnetr.outputs.reports.fold_table import FoldScores, draw_fold_table
from segnetr.outputs.reports.quality_section import draw_quality
from segnetr.outputs.tables.scores import RULES, SummaryFile, show_interval, show_number
from segnetr.storage.manifest import write_text_atomic

_TILE_METRICS = ("dice", "iou", "isic_jaccard")
_METRIC_NAMES = {
    "dice": "Dice",
    "iou": "IoU (Jaccard)",
    "isic_jaccard": "ISIC Jaccard (thresholded)",
    "dice_pooled": "Dice, pooled",
}
_OUTLINES = "The outline of the ground truth is green, that of the prediction orange"
_BESIDE = "; a image without outlines stands to the left."
_SLICES = "; the buttons below a sheet of slices show them one by one (arrow keys move along)."
_RULE_NAMES = {
    "scored": "What is scored",
    "lengths": "Lengths",
    "both_empty": "Empty in ground truth and prediction",
    "missed": "Missed: only the ground truth has it",
    "false_alarm": "False alarm: only the prediction has it",
    "border": "Border",
    "interval": "Interval",
    "dice_pooled": "Pooled Dice",
    "mean": "Mean over classes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContent:
    """All that a report shows. Every text is plain: it is escaped here, and only here.

    Attributes:
        title: Heading of the page.
        subtitle: One line below it.
        facts: What was trained on what: model, data set, counts by part, split hash, license.
        summaries: Scores; the page says so where there are none.
        scored: What the scores were taken on.
        folds: Scores of each fold of a cross-validation.
        tested: Scores of all folds together on the test part.
        curves: The lines of `metrics.jsonl`; see `segnetr.outputs.charts.curves.chart_rows`.
        figures: Cases as images, in the order to show them. Those whose titles agree up to a
            colon stand under one heading.
        settings_yaml: The resolved configuration.
        provenance: Versions, threads, processor, commit and the like.
        issues: Cases that were left out or not scored, one line each.
        notes: Things the reader should know, one line each.
        cases: Spread of the scores, calibration, sizes and times.
        trials: Repairs that were tried on the validation cases.
    """

    title: str
    subtitle: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    summaries: Sequence[Summary] = ()
    scored: str = ""
    folds: Sequence[FoldScores] = ()
    tested: SummaryFile | None = None
    curves: Sequence[Mapping[str, object]] = ()
    figures: Sequence[Figure] = ()
    settings_yaml: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    issues: Sequence[str] = ()
    notes: Sequence[str] = ()
    cases: CaseSection = field(default_factory=CaseSection)
    trials: Sequence[PostprocessingTrial] = ()


def write_report(path: Path, *, content: ReportContent) -> None:
    """Write the page.

    Raises:
        WriteError: If it cannot be written; an older page is then untouched.
        ValueError: If a figure is no PNG, JPEG or WebP file.
    """
    write_text_atomic(path, render_report(content))


def render_report(content: ReportContent) -> str:
    """Give the page as text.

    Raises:
        ValueError: If a figure is no PNG, JPEG or WebP file.
    """
    figures, left_out = choose_within(content.figures)
    sections = [
        ("scores", "Scores", _scores(content)),
        ("folds", "Folds", draw_fold_table(content.folds, content.summaries)),
        ("test", "Test part", _test(content.tested)),
        ("spread", "Spread", draw_spread(content.cases)),
        ("sizes", "Sizes", draw_sizes(content.cases)),
        ("calibration", "Calibration", draw_calibration(content.cases)),
        ("quality", "When not to believe", draw_quality(content.cases.judged)),
        ("cases", "Cases", _cases(figures)),
        ("training", "Training", draw_charts(content.curves)),
        ("repairs", "Repairs", _trials(content.trials)),
        ("data", "Data and model", draw_facts({**content.facts, **content.cases.times})),
        ("issues", "Left out", draw_list(content.issues)),
        ("rules", "How scores are made", draw_facts(_named_rules()) if content.summaries else ""),
        ("settings", "Settings", draw_settings(content.settings_yaml)),
        ("provenance", "Versions and machine", draw_facts(content.provenance)),
    ]
    return draw_page(
        title=content.title,
        subtitle=content.subtitle,
        head=draw_notes([*content.notes, *left_out]) + _tiles(content.summaries),
        sections=sections,
    )


def _tiles(summaries: Sequence[Summary]) -> str:
    """The figures a reader looks for first: overlap, distance, and what was missed."""
    metrics = {row.metric for row in summaries}
    wanted = [name for name in _TILE_METRICS if name in metrics]
    wanted += sorted(name for name in metrics if name.startswith("hd95"))
    tiles = []
    for metric in wanted:
        row = select_summary(summaries, metric)
        interval = "" if row.low is None else f"95 %: {show_interval(row)}"
        name = _name_metric(metric).partition(" (")[0]
        tiles.append(draw_tile(name, _with_unit(row), interval))
    if "dice" in metrics:
        row = select_summary(summaries, "dice")
        rest = f"of {row.cases} cases; {row.false_alarms} false alarms"
        tiles.append(draw_tile("Missed structures", str(row.missed), rest))
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _scores(content: ReportContent) -> str:
    if not content.summaries:
        return "<p>No case has been scored yet.</p>"
    intro = f"<p>Scored on {escape(content.scored)}.</p>" if content.scored else ""
    return (
        intro
        + _score_table(content.summaries)
        + "<h3>Missed and imagined</h3>"
        + _count_table(content.summaries)
    )


def _cases(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    ways = [bool(figure.slices) for figure in figures]
    rest = _SLICES if all(ways) else _BESIDE if not any(ways) else "."
    return f"<p>{_OUTLINES}{rest}</p>{draw_figures(figures)}"


def _test(tested: SummaryFile | None) -> str:
    if tested is None:
        return ""
    intro = f"<p>{escape(tested.title)}, by the mean of the probabilities of all folds.</p>"
    return intro + _score_table(tested.summaries)


def _trials(trials: Sequence[PostprocessingTrial]) -> str:
    """What was tried on the validation cases, and what the model does since."""
    if not trials:
        return ""
    names = ("repair", "gain of Dice", "interval", "cases", "taken")
    head = "".join(
        f'<th scope="col"{align_number(name not in ("repair", "taken"))}>{name}</th>'
        for name in names
    )
    rows = []
    for trial in trials:
        known = trial.low is not None and trial.high is not None
        interval = f"{trial.low:+.4f} to {trial.high:+.4f}" if known else "too few patients"
        numbers = (f"{trial.gain:+.4f}", interval, str(trial.cases))
        cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
        verdict = "yes" if trial.taken else "no"
        rows.append(f'<tr><th scope="row">{escape(trial.step)}</th>{cells}<td>{verdict}</td></tr>')
    return (
        "<p>Tried on the validation cases alone; taken only where the interval of the gain, "
        "widened for the number of trials, lies above 0.</p>" + draw_table(head, rows)
    )


def _score_table(summaries: Sequence[Summary]) -> str:
    names = ("class", "metric", "mean", "95 % interval", "0 to 1", "std", "median", "cases")
    head = "".join(
        f'<th scope="col"{align_number(name not in ("class", "metric", "0 to 1"))}>{name}</th>'
        for name in names
    )
    rows, previous = [], ""
    for row in summaries:
        first = ' class="first"' if previous and row.class_name != previous else ""
        numbers = (
            show_number(row.mean, metric=row.metric),
            show_interval(row),
            _draw_interval(row),
            show_number(row.std, metric=row.metric),
            show_number(row.median, metric=row.metric),
            f"{row.cases - row.undefined} of {row.cases}" if row.undefined else str(row.cases),
        )
        cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
        name = escape(_name_class(row.class_name)) if row.class_name != previous else ""
        rows.append(
            f'<tr{first}><th scope="row">{name}</th><td>{escape(_name_metric(row.metric))}</td>'
            f"{cells}</tr>"
        )
        previous = row.class_name
    return draw_table(head, rows)


def _draw_interval(row: Summary) -> str:
    if row.mean is None or row.metric.startswith(("hd95", "assd")):
        return ""
    low, high = (row.mean if end is None else end for end in (row.low, row.high))
    return (
        '<svg class="interval" viewBox="0 0 150 14" aria-hidden="true">'
        '<rect class="track" x="0" y="6" width="150" height="2"/>'
        f'<rect class="span" x="{150 * low:.1f}" y="3" width="{150 * (high - low):.1f}" '
        f'height="8"/><rect class="mean" x="{150 * row.mean - 1:.1f}" y="0" width="2" '
        'height="14"/></svg>'
    )


def _count_table(summaries: Sequence[Summary]) -> str:
    names = ("class", "cases", "missed", "false alarms", "empty in both")
    head = "".join(f'<th scope="col"{align_number(name != "class")}>{name}</th>' for name in names)
    rows = [
        f'<tr><th scope="row">{escape(_name_class(row.class_name))}</th>'
        + "".join(
            f'<td class="number">{count}</td>'
            for count in (row.cases, row.missed, row.false_alarms, row.both_empty)
        )
        + "</tr>"
        for row in summaries
        if row.metric == "dice" and row.class_name != MEAN
    ]
    return draw_table(head, rows, kind="counts")


def _named_rules() -> dict[str, str]:
    return {_RULE_NAMES[key]: text for key, text in RULES.items()}


def _name_class(name: str) -> str:
    return "mean over classes" if name == MEAN else name


def _name_metric(metric: str) -> str:
    """Give a metric the name people know: `hd95_mm` is "HD95 (mm)", `nsd_2px` "NSD at 2 px"."""
    if metric in _METRIC_NAMES:
        return _METRIC_NAMES[metric]
    kind, _, rest = metric.partition("_")
    if kind == "nsd":
        return f"NSD at {rest[:-2]} {rest[-2:]}"
    return f"{kind.upper()} ({rest})" if rest in ("mm", "px") else metric


def _with_unit(row: Summary) -> str:
    unit = row.metric.rpartition("_")[2] if row.metric.startswith(("hd95", "assd")) else ""
    return f"{show_number(row.mean, metric=row.metric)} {unit}".strip()

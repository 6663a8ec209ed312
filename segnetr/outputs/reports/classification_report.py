"""The page about a training of a classifier: the style of that of segmentation, other scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from segnetr.metrics.classification_summary import ClassRow, ClassScore, ClassSummary
from segnetr.outputs.charts.classification import MOST_CLASSES, draw_confusions, draw_reliability
from segnetr.outputs.reports.elements import (
    align_number,
    draw_charts,
    draw_facts,
    draw_list,
    draw_notes,
    draw_page,
    draw_settings,
    draw_table,
    draw_tile,
)
from segnetr.outputs.tables.classification import RULES, describe_undefined, show_range, show_share
from segnetr.storage.manifest import write_text_atomic

_NAMES = {
    "accuracy": "Accuracy",
    "top5_accuracy": "Top-5 accuracy",
    "exact_match": "Exact match",
    "balanced_accuracy": "Balanced accuracy",
    "auroc": "AUROC (mean over classes)",
    "f1": "F1 (mean over classes)",
    "calibration_error": "Calibration error",
}
_TILES = ("accuracy", "balanced_accuracy", "auroc", "f1", "calibration_error")
_RULE_NAMES = {"decided": "Decision", "undefined": "Undefined", "interval": "Interval"}
_MOST_SPANS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassReportContent:
    """All that the page shows. Every text is plain.

    Attributes:
        title: Heading of the page.
        subtitle: One line below it.
        facts: What was trained on what.
        summary: Scores; None: nothing was scored.
        scored: What the scores were taken on.
        curves: The lines of `metrics.jsonl`.
        settings_yaml: The resolved configuration.
        provenance: Versions, threads, processor, commit and the like.
        issues: Cases that were left out or not scored, one line each.
        notes: Things the reader should know, one line each.
    """

    title: str
    subtitle: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    summary: ClassSummary | None = None
    scored: str = ""
    curves: Sequence[Mapping[str, object]] = ()
    settings_yaml: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    issues: Sequence[str] = ()
    notes: Sequence[str] = ()


def write_class_report(path: Path, *, content: ClassReportContent) -> None:
    """Write the page.

    Raises:
        WriteError: If it cannot be written; an older page is then untouched.
    """
    write_text_atomic(path, render_class_report(content))


def render_class_report(content: ClassReportContent) -> str:
    """Give the page as text."""
    summary = content.summary
    notes = [*content.notes, *(describe_undefined(summary) if summary else ())]
    sections = [
        ("scores", "Scores", _scores(content)),
        ("classes", "Classes", _classes(summary.classes) if summary else ""),
        ("images", "Confusions and calibration", _images(summary) if summary else ""),
        ("training", "Training", draw_charts(content.curves)),
        ("data", "Data and model", draw_facts(content.facts)),
        ("issues", "Left out", draw_list(content.issues)),
        ("rules", "How scores are made", draw_facts(_name_rules(summary)) if summary else ""),
        ("settings", "Settings", draw_settings(content.settings_yaml)),
        ("provenance", "Versions and machine", draw_facts(content.provenance)),
    ]
    return draw_page(
        title=content.title,
        subtitle=content.subtitle,
        head=draw_notes(notes) + (_tiles(summary.scores) if summary else ""),
        sections=sections,
    )


def _tiles(scores: Sequence[ClassScore]) -> str:
    shown = {score.metric: score for score in scores}
    tiles = []
    for metric in _TILES:
        score = shown[metric]
        below = "" if score.low is None else f"95 %: {show_range(score.low, score.high)}"
        name = _NAMES[metric].partition(" (")[0]
        tiles.append(draw_tile(name, show_share(score.value), below))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _scores(content: ClassReportContent) -> str:
    summary = content.summary
    if summary is None:
        return "<p>No case has been scored yet.</p>"
    synthetic = f"{summary.groups} groups" if summary.groups < summary.cases else "single cases"
    intro = f"<p>Scored on {escape(content.scored)}; intervals over {synthetic}.</p>"
    names = ("metric", "value", "95 % interval", "0 to 1")
    head = "".join(
        f'<th scope="col"{align_number(name in names[1:3])}>{name}</th>' for name in names
    )
    rows = [
        f'<tr><th scope="row">{escape(_NAMES[score.metric])}</th>'
        f'<td class="number">{show_share(score.value)}</td>'
        f'<td class="number">{show_range(score.low, score.high)}</td>'
        f"<td>{_draw_span(score.value, score.low, score.high)}</td></tr>"
        for score in summary.scores
    ]
    return intro + draw_table(head, rows)


def _classes(rows: Sequence[ClassRow]) -> str:
    names = ("class", "cases", "decided", "recall", "specificity", "precision", "F1", "AUROC",
             "95 % of AUROC", "0 to 1")  # fmt: skip
    head = "".join(
        f'<th scope="col"{align_number(name not in ("class", "0 to 1"))}>{name}</th>'
        for name in names
    )
    body = []
    for row in rows:
        shares = (row.recall, row.specificity, row.precision, row.f1, row.auroc)
        cells = (
            str(row.cases),
            str(row.decided),
            *map(show_share, shares),
            show_range(row.auroc_low, row.auroc_high),
        )
        span = _draw_span(row.auroc, row.auroc_low, row.auroc_high)
        body.append(
            f'<tr><th scope="row">{escape(row.class_name)}</th>'
            + "".join(f'<td class="number">{cell}</td>' for cell in cells)
            + f"<td>{span if len(rows) <= _MOST_SPANS else ''}</td></tr>"
        )
    return draw_table(head, body)


def _images(summary: ClassSummary) -> str:
    parts = []
    if summary.confusions and len(summary.confusions) <= MOST_CLASSES:
        names = [row.class_name for row in summary.classes]
        parts.append(
            "<figure>" + draw_confusions(summary.confusions, names) + "<figcaption><strong>"
            "Confusions</strong>True class by row, decided class by column; shaded by the share "
            "of the row.</figcaption></figure>"
        )
    parts.append(
        "<figure>" + draw_reliability(summary.bins) + "<figcaption><strong>Calibration</strong>"
        "How often what was said with a confidence is true; on the dashed line it is as often as "
        "was said.</figcaption></figure>"
    )
    return f'<div class="figures">{"".join(parts)}</div>'


def _draw_span(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    start, end = (value if edge is None else edge for edge in (low, high))
    return (
        '<svg class="interval" viewBox="0 0 150 14" aria-hidden="true">'
        '<rect class="track" x="0" y="6" width="150" height="2"/>'
        f'<rect class="span" x="{150 * start:.1f}" y="3" width="{150 * (end - start):.1f}" '
        f'height="8"/><rect class="mean" x="{150 * value - 1:.1f}" y="0" width="2" '
        'height="14"/></svg>'
    )


def _name_rules(summary: ClassSummary) -> dict[str, str]:
    shown = {score.metric for score in summary.scores} | set(_RULE_NAMES)
    names = {**_NAMES, **_RULE_NAMES}
    return {names[key]: text for key, text in RULES.items() if key in shown}

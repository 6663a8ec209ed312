"""One HTML file about runs beside each other: who is better, how sure it is, where they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from segnetr.metrics import MEAN
from segnetr.outputs.charts.dot_plot import DotChart, draw_dot_chart
from segnetr.outputs.reports.elements import (
    align_number,
    draw_facts,
    draw_figures,
    draw_list,
    draw_notes,
    draw_page,
    draw_table,
)
from segnetr.outputs.reports.figures import Figure, choose_within
from segnetr.outputs.tables.comparison import ComparisonRow
from segnetr.storage.manifest import write_text_atomic

_WORDS = ("first", "second", "class", "metric", "verdict")
RULES = {
    "Difference": "mean over the cases of second minus first; both were scored on the same cases",
    "95 % interval": "percentile bootstrap: patients are drawn with replacement, each with all of "
    "their cases",
    "p corrected": "two-sided Wilcoxon signed-rank test over the patients' mean differences, "
    "differences of 0 left out, with Holm's correction for all tests of the table; without it in "
    "compare.csv",
    "Better / worse / equal": "cases in which the second has the better, the worse, the same value",
    "Effect": "matched-pairs rank-biserial correlation, -1 to 1; above 0: the second has the "
    "higher values, which is worse for distances",
    "Better": "said only where the corrected p value is below 0.05 and the interval does not hold "
    "0; the test knows these cases and these trained weights, and nothing of another seed",
    "Rightly empty": "where one run is rightly empty and the other has a false alarm, the empty "
    "one counts as perfect (distance 0, share 1); where both are, the case says nothing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparePage:
    """All that the page shows. Every text is plain.

    Attributes:
        title: Heading.
        subtitle: One line below it.
        notes: What the reader should know first.
        rows: The comparisons.
        charts: Cases of two runs against each other.
        figures: Cases where the runs differ most.
        settings: Rows of settings that differ: the setting, and its value in each run.
        facts: What was compared on what.
    """

    title: str
    subtitle: str
    notes: Sequence[str] = ()
    rows: Sequence[ComparisonRow] = ()
    charts: Sequence[DotChart] = ()
    figures: Sequence[Figure] = ()
    settings: Sequence[Mapping[str, str]] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def write_compare_page(path: Path, *, content: ComparePage) -> None:
    """Write the page.

    Raises:
        WriteError: If it cannot be written; an older page is then untouched.
    """
    write_text_atomic(path, render_compare_page(content))


def render_compare_page(content: ComparePage) -> str:
    """Give the page as text."""
    charts = "".join(
        f'<div class="panel chart-panel">{draw_dot_chart(chart)}</div>' for chart in content.charts
    )
    figures, left_out = choose_within(content.figures)
    notes = [*content.notes, *left_out]
    sections = [
        ("scores", "Who is better", _draw_rows([row.shown() for row in content.rows])),
        ("cases", "Case by case", f'<div class="charts">{charts}</div>' if charts else ""),
        ("images", "Where they differ most", draw_figures(figures, wide=True)),
        ("settings", "Settings that differ", _draw_rows(content.settings)),
        ("runs", "Runs", draw_facts(content.facts)),
        ("rules", "How it is compared", draw_facts(RULES)),
    ]
    verdicts = [_say_verdict(row) for row in content.rows if row.metric == content.rows[0].metric]
    return draw_page(
        title=content.title,
        subtitle=content.subtitle,
        head=f'{draw_notes(notes)}<div class="verdicts">{draw_list(verdicts)}</div>',
        sections=sections,
    )


def _say_verdict(row: ComparisonRow) -> str:
    """Say a row in one line, the way one would tell it."""
    shown = row.shown()
    name = "" if row.class_name == MEAN else f" of {row.class_name}"
    return (
        f"{row.metric}{name}: {row.verdict}. {shown['first']}, {shown['second']}: difference "
        f"{row.shown_difference} (95 %: {row.shown_interval}) over {row.result.difference.cases} "
        "cases"
    )


def _draw_rows(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return ""
    is_number = {name: name not in _WORDS and "verdict" in rows[0] for name in rows[0]}
    head = "".join(
        f'<th scope="col"{align_number(is_number[name])}>{escape(name)}</th>' for name in rows[0]
    )
    lines = [
        "<tr>"
        + "".join(
            f"<td{align_number(is_number[name])}>{escape(text)}</td>" for name, text in row.items()
        )
        + "</tr>"
        for row in rows
    ]
    return draw_table(head, lines)

"""The HTML report of a comparison of runs: which is better, how certain, where they differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segnetr.metrics import MEAN
from segnetr.outputs.charts.dot_plot import DotChart, draw_dot_chart
from segnetr.outputs.reports.figures import Figure, choose_within
from segnetr.outputs.reports.rendering import HtmlTable, group_figures, mark_svg, render_page
from segnetr.outputs.tables.comparison import TEXT_COLUMNS, ComparisonRow
from segnetr.storage.manifest import write_text_atomic

_NOTES = {
    "Difference": "mean over the cases of second minus first; both were scored on the same cases",
    "95 % interval": "percentile bootstrap: patients are drawn with replacement, each with all of "
    "their cases",
    "p corrected": "two-sided Wilcoxon signed-rank test over the mean differences of the patients, "
    "without differences of 0, with Holm's correction for all tests of the table; compare.csv also "
    "has the uncorrected values",
    "Better / worse / equal": "number of cases in which the second run has the better, the worse, "
    "the same value",
    "Effect": "matched-pairs rank-biserial correlation, -1 to 1; above 0: the second run has the "
    "higher values, which is worse for distances",
    "Better": "stated only if the corrected p value is below 0.05 and the interval excludes 0; "
    "the test covers these cases and these trained weights, not other seeds",
    "Empty in both": "where one run is correctly empty and the other has a false positive, the "
    "empty one counts as perfect (distance 0, share 1); where both are correctly empty, the case "
    "is not compared",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonReport:
    """The content of the report. All texts are plain.

    Attributes:
        title: Heading.
        subtitle: One line below it.
        notes: Warnings at the top of the page.
        rows: The comparisons.
        charts: Cases of two runs against each other.
        figures: Cases with the largest differences.
        settings: Rows of settings that differ: the setting, and its value in each run.
        facts: Description of each run, by name.
    """

    title: str
    subtitle: str
    notes: Sequence[str] = ()
    rows: Sequence[ComparisonRow] = ()
    charts: Sequence[DotChart] = ()
    figures: Sequence[Figure] = ()
    settings: Sequence[Mapping[str, str]] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def write_comparison_report(path: Path, report: ComparisonReport) -> None:
    """Write the page.

    Raises:
        WriteError: If it cannot be written. An existing page is then unchanged.
    """
    write_text_atomic(path, render_comparison_report(report))


def render_comparison_report(report: ComparisonReport) -> str:
    """Return the page as text."""
    figures, omitted = choose_within(report.figures)
    scores = [row.shown() for row in report.rows]
    settings_columns = list(report.settings[0]) if report.settings else []
    return render_page(
        "comparison_report.html.j2",
        report=report,
        title=report.title,
        subtitle=report.subtitle,
        notes=[*report.notes, *omitted],
        verdicts=[
            _describe_verdict(row) for row in report.rows if row.metric == report.rows[0].metric
        ],
        score_table=_tabulate(scores, text_columns=TEXT_COLUMNS),
        charts=[mark_svg(draw_dot_chart(chart)) for chart in report.charts],
        figure_groups=group_figures(figures),
        settings_table=_tabulate(report.settings, text_columns=settings_columns),
        rules=_NOTES,
    )


def _describe_verdict(row: ComparisonRow) -> str:
    """Return a row as one sentence."""
    shown = row.shown()
    name = "" if row.class_name == MEAN else f" of {row.class_name}"
    return (
        f"{row.metric}{name}: {row.verdict}. {shown['first']}, {shown['second']}: difference "
        f"{row.shown_difference} (95 %: {row.shown_interval}) over {row.result.difference.cases} "
        "cases"
    )


def _tabulate(rows: Sequence[Mapping[str, str]], *, text_columns: Sequence[str]) -> HtmlTable:
    return HtmlTable(
        headers=list(rows[0]) if rows else [],
        rows=[list(row.values()) for row in rows],
        text_columns=text_columns,
        has_row_headers=False,
    )

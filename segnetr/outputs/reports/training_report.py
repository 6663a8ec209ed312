"""The content that the reports of all training commands share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segnetr.outputs.charts.lines import chart_training_log, draw_line_chart
from segnetr.outputs.reports.rendering import mark_svg

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """The content of a report. All texts are plain.

    Attributes:
        title: Heading of the page.
        subtitle: One line below it.
        facts: Model, dataset, cases of each split, split hash, license, by name.
        scored: The cases that were scored, in words.
        curves: The rows of `metrics.jsonl`; see `segnetr.outputs.charts.lines`.
        settings_yaml: The resolved configuration.
        provenance: Versions, threads, CPU, commit and the like, by name.
        issues: Cases that were excluded or not scored, one line each.
        notes: Warnings at the top of the page, one line each.
    """

    title: str
    subtitle: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    scored: str = ""
    curves: Sequence[Mapping[str, object]] = ()
    settings_yaml: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    issues: Sequence[str] = ()
    notes: Sequence[str] = ()

    def line_charts(self) -> "list[Markup]":
        """Draw the curves of the training."""
        return [mark_svg(draw_line_chart(chart)) for chart in chart_training_log(self.curves)]

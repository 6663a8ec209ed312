"""Pairwise comparisons of runs as text, as a CSV table and as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from segnetr.metrics.registry import get_metric
from segnetr.metrics.significance import PairedResult
from segnetr.outputs.tables.csv_file import format_csv
from segnetr.outputs.tables.scores import show_number, text_table

LEVEL = 0.05
"""Corrected p values below this level are significant."""

IDENTICAL = "no difference"
UNDECIDED = "not decided"
TEXT_COLUMNS = ("first", "second", "class", "metric", "verdict")
"""Columns of `ComparisonRow.shown` that are text; the others are numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One metric of one class in two runs.

    Attributes:
        first: Name of the first run.
        second: Name of the second run.
        class_name: The class; "mean": the mean over classes of each case.
        metric: The metric, with its unit if it has one.
        result: Comparison of the second run against the first.
        p_corrected: The p value, corrected for all tests of the table.
    """

    first: str
    second: str
    class_name: str
    metric: str
    result: PairedResult
    p_corrected: float

    @property
    def better(self) -> int:
        """Number of cases in which the second run is better."""
        return self.result.higher if get_metric(self.metric).higher_is_better else self.result.lower

    @property
    def worse(self) -> int:
        """Number of cases in which the first run is better."""
        return self.result.lower if get_metric(self.metric).higher_is_better else self.result.higher

    @property
    def verdict(self) -> str:
        """The conclusion: "NAME is better", "no difference" or "not decided".

        A run is better only if the corrected p value is below 0.05 and the interval of the mean
        difference does not contain 0.
        """
        if self.result.is_identical:
            return IDENTICAL
        difference = self.result.difference
        if difference.low is None or difference.high is None or self.p_corrected >= LEVEL:
            return UNDECIDED
        if difference.low <= 0 <= difference.high:
            return UNDECIDED
        is_second = (difference.low > 0) == get_metric(self.metric).higher_is_better
        return f"{self.second if is_second else self.first} is better"

    def to_dict(self) -> Mapping[str, Any]:
        """Return the row as plain data."""
        result = self.result
        return {
            "first": self.first,
            "second": self.second,
            "class": self.class_name,
            "metric": self.metric,
            "first_mean": result.first_mean,
            "second_mean": result.second_mean,
            **{f"difference_{k}": v for k, v in asdict(result.difference).items() if k != "cases"},
            "cases": result.difference.cases,
            "patients": result.patients,
            "better": self.better,
            "worse": self.worse,
            "equal": result.equal,
            "effect": result.effect,
            "p_value": result.p_value,
            "p_corrected": self.p_corrected,
            "verdict": self.verdict,
        }

    def shown(self) -> Mapping[str, str]:
        """Return the row as text."""
        result = self.result
        means = (
            f"{name} {show_number(value, metric=self.metric)}"
            for name, value in (
                (self.first, result.first_mean),
                (self.second, result.second_mean),
            )
        )
        first, second = means
        return {
            "metric": self.metric,
            "class": "mean over classes" if self.class_name == "mean" else self.class_name,
            "first": first,
            "second": second,
            "verdict": self.verdict,
            "difference": self.shown_difference,
            "95 % interval": self.shown_interval,
            "p corrected": show_p(self.p_corrected),
            "effect": f"{result.effect:+.2f}",
            "better / worse / equal": f"{self.better} / {self.worse} / {result.equal}",
        }

    @property
    def shown_difference(self) -> str:
        """The mean difference, with its sign."""
        return _show_signed(self.result.difference.mean, metric=self.metric)

    @property
    def shown_interval(self) -> str:
        """The interval of the difference; "-" if there is none."""
        low, high = self.result.difference.low, self.result.difference.high
        if low is None or high is None:
            return "-"
        return " to ".join(_show_signed(value, metric=self.metric) for value in (low, high))


def show_p(value: float) -> str:
    """Return a p value as text."""
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def comparison_csv(rows: Sequence[ComparisonRow]) -> str:
    """Return the rows as CSV text. Numbers have all their digits; missing ones are empty."""
    return format_csv([row.to_dict() for row in rows])


def comparison_text(rows: Sequence[ComparisonRow]) -> str:
    """Return the rows as a table for the terminal."""
    shown = [row.shown() for row in rows]
    return text_table(shown, right=[name for name in shown[0] if name not in TEXT_COLUMNS])


def _show_signed(value: float, *, metric: str) -> str:
    text = show_number(abs(value), metric=metric)
    return f"{'-' if value < 0 else '+'}{text}" if float(text) else text

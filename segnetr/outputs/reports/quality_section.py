"""The part of a report about predicted quality: predicted against true Dice, badges of cases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segnetr.engine.quality.estimator import Quality
from segnetr.engine.quality.rank_correlation import correlate_ranks
from segnetr.metrics import Score
from segnetr.outputs.charts.dot_plot import Dot, DotChart, draw_dot_chart
from segnetr.outputs.reports.rendering import Badge, HtmlTable, mark_svg
from segnetr.outputs.tables.case_records import CaseRecord

_MOST_ROWS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityCase:
    """A scored case whose quality was predicted.

    Attributes:
        case_id: The case.
        dice: True Dice, the mean over the foreground classes.
        quality: Predicted quality.
    """

    case_id: str
    dice: float
    quality: Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityAgreement:
    """Agreement of predicted and true Dice.

    Attributes:
        cases: Number of cases with a predicted quality.
        spearman: Rank correlation over all of them; None: too few cases, or all values are equal.
        error: Mean absolute difference.
        level: Nominal share of the cases whose interval contains the true Dice.
        coverage: Actual share.
        out_of_distribution: Number of cases flagged as out of distribution.
    """

    cases: int
    spearman: float | None
    error: float
    level: float
    coverage: float
    out_of_distribution: int


def pair_quality(scores: Sequence[Score], records: Sequence[CaseRecord]) -> list[QualityCase]:
    """Pair the predicted quality of each case with its score, in the order of the records."""
    values: dict[str, list[float]] = {}
    for score in scores:
        if score.metric == "dice" and score.value is not None:
            values.setdefault(score.case_id, []).append(score.value)
    return [
        QualityCase(
            case_id=record.case_id,
            dice=float(np.mean(values[record.case_id])),
            quality=record.quality,
        )
        for record in records
        if record.quality is not None and record.case_id in values
    ]


def measure_quality_agreement(cases: Sequence[QualityCase]) -> QualityAgreement:
    """Compare predicted with true Dice.

    Raises:
        ValueError: If there is no case.
    """
    if not cases:
        raise ValueError("no case has a predicted quality")
    predicted = [case.quality.dice for case in cases]
    true = [case.dice for case in cases]
    covered = [case.quality.low <= case.dice <= case.quality.high for case in cases]
    return QualityAgreement(
        cases=len(cases),
        spearman=correlate_ranks(predicted, true),
        error=float(np.mean(np.abs(np.array(predicted) - true))),
        level=min(case.quality.level for case in cases),
        coverage=float(np.mean(covered)),
        out_of_distribution=sum(case.quality.is_ood for case in cases),
    )


def describe_quality_cases(cases: Sequence[QualityCase]) -> dict[str, object]:
    """Return the values that the template of the run report shows; empty ones without cases."""
    text = _describe_agreement(measure_quality_agreement(cases)) if cases else ""
    shown = min(len(cases), _MOST_ROWS)
    return {
        "quality_chart": mark_svg(_draw_chart(cases, text) if cases else ""),
        "quality_text": text,
        "quality_rows": "all" if shown == len(cases) else f"the first {shown} of {len(cases)}",
        "quality_table": _tabulate(cases),
    }


def format_badge(quality: Quality) -> str:
    """Return the predicted quality of a mask in a few words."""
    return f"predicted {quality.dice:.2f} ({quality.low:.2f} to {quality.high:.2f})"


def format_warning(quality: Quality) -> str:
    """Return why a case is out of distribution in a few words; empty if it is not."""
    return f"out of distribution: {'; '.join(quality.reasons)}" if quality.is_ood else ""


def _describe_agreement(agreement: QualityAgreement) -> str:
    rank = "not defined" if agreement.spearman is None else f"{agreement.spearman:.2f}"
    return (
        f"Spearman {rank} over {agreement.cases} cases, mean difference {agreement.error:.3f}. The "
        f"interval contains the true Dice of {agreement.coverage:.0%} of them; its nominal level, "
        f"for cases like the validation cases, is {agreement.level:.0%}. "
        f"{agreement.out_of_distribution} cases are out of distribution."
    )


def _draw_chart(cases: Sequence[QualityCase], words: str) -> str:
    dots = [
        Dot(
            name=f"{case.case_id}: predicted {case.quality.dice:.3f}, true {case.dice:.3f}",
            x=case.quality.dice,
            y=case.dice,
        )
        for case in cases
    ]
    return draw_dot_chart(
        DotChart(
            title="Predicted against true Dice",
            x_label="predicted Dice",
            y_label="true Dice",
            dots=dots,
            diagonal=True,
            words=words,
        )
    )


def _tabulate(cases: Sequence[QualityCase]) -> HtmlTable:
    """Return a row for each case: out-of-distribution cases first, then by predicted Dice."""
    ranked = sorted(cases, key=lambda case: (not case.quality.is_ood, case.quality.dice))
    rows: list[list[str | Badge]] = []
    for case in ranked[:_MOST_ROWS]:
        quality = case.quality
        warning = format_warning(quality)
        rows.append(
            [
                case.case_id,
                f"{quality.dice:.3f}",
                f"{quality.low:.3f} to {quality.high:.3f}",
                f"{case.dice:.3f}",
                Badge(text=warning or "in distribution", is_warning=bool(warning)),
            ]
        )
    return HtmlTable(
        headers=("case", "predicted Dice", "interval", "true Dice", "badge"),
        rows=rows,
        text_columns=("case", "badge"),
    )

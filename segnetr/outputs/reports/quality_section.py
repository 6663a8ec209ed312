"""What a report says of predicted against true Dice, and a badge for each case."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from segnetr.engine.quality.estimator import Quality
from segnetr.engine.quality.rank_correlation import correlate_ranks
from segnetr.metrics import Score
from segnetr.outputs.charts.dot_plot import Dot, DotChart, draw_dot_chart
from segnetr.outputs.reports.elements import align_number, draw_badge, draw_table
from segnetr.outputs.tables.case_records import CaseRecord

_MOST_ROWS = 300
_TITLE = "Predicted against true Dice"


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCase:
    """A scored case of which something was believed before.

    Attributes:
        case_id: The case.
        dice: True Dice, the mean over the foreground classes.
        quality: What was believed.
    """

    case_id: str
    dice: float
    quality: Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How well predicted Dice agrees with the true one.

    Attributes:
        cases: Cases that were judged.
        spearman: Rank correlation over all of them; None: too few, or all alike.
        error: Mean absolute difference.
        level: Share of the cases whose interval should hold the true Dice.
        held: Share whose interval does.
        unlike: Cases that were said to be unlike the training set.
    """

    cases: int
    spearman: float | None
    error: float
    level: float
    held: float
    unlike: int


def judge_cases(scores: Sequence[Score], records: Sequence[CaseRecord]) -> list[JudgedCase]:
    """Put what was believed of each case beside its score, in the order of the records."""
    values: dict[str, list[float]] = {}
    for score in scores:
        if score.metric == "dice" and score.value is not None:
            values.setdefault(score.case_id, []).append(score.value)
    return [
        JudgedCase(
            case_id=record.case_id,
            dice=float(np.mean(values[record.case_id])),
            quality=record.quality,
        )
        for record in records
        if record.quality is not None and record.case_id in values
    ]


def measure_agreement(judged: Sequence[JudgedCase]) -> Agreement:
    """Compare predicted with true Dice.

    Raises:
        ValueError: If there is no case.
    """
    if not judged:
        raise ValueError("no case was judged")
    said = [case.quality.dice for case in judged]
    true = [case.dice for case in judged]
    held = [case.quality.low <= case.dice <= case.quality.high for case in judged]
    return Agreement(
        cases=len(judged),
        spearman=correlate_ranks(said, true),
        error=float(np.mean(np.abs(np.array(said) - true))),
        level=min(case.quality.level for case in judged),
        held=float(np.mean(held)),
        unlike=sum(case.quality.is_ood for case in judged),
    )


def draw_quality(judged: Sequence[JudgedCase]) -> str:
    """Draw the plot, what it comes to, and a row with a badge for each case; nothing for none."""
    if not judged:
        return ""
    found = measure_agreement(judged)
    order = "not defined" if found.spearman is None else f"{found.spearman:.2f}"
    words = (
        f"Spearman {order} over {found.cases} cases, mean difference {found.error:.3f}. The "
        f"interval holds the true Dice of {found.held:.0%} of them; {found.level:.0%} were "
        f"promised for cases like those of the validation. {found.unlike} cases are unlike the "
        "training set."
    )
    dots = [Dot(name=_name(case), x=case.quality.dice, y=case.dice) for case in judged]
    chart = DotChart(
        title=_TITLE,
        x_label="predicted Dice",
        y_label="true Dice",
        dots=dots,
        diagonal=True,
        words=words,
    )
    return (
        "<p>Predicted quality of each mask, computed without its ground truth. Cases that the "
        "prediction "
        "was calibrated on are predicted by a fit without them.</p>"
        f'<div class="charts"><div class="panel chart-panel">{draw_dot_chart(chart)}</div></div>'
        f"<p>{escape(words)}</p>" + _draw_rows(judged)
    )


def name_badge(quality: Quality) -> str:
    """Say in a few words what is believed about a mask."""
    return f"predicted {quality.dice:.2f} ({quality.low:.2f} to {quality.high:.2f})"


def name_alarm(quality: Quality) -> str:
    """Say in a few words why nothing is believed about it; empty where something is."""
    return f"unlike the training set: {'; '.join(quality.reasons)}" if quality.is_ood else ""


def _draw_rows(judged: Sequence[JudgedCase]) -> str:
    """Draw a table, folded up: the least believed first."""
    names = ("case", "predicted Dice", "interval", "true Dice", "badge")
    head = "".join(
        f'<th scope="col"{align_number(name not in ("case", "badge"))}>{name}</th>'
        for name in names
    )
    ranked = sorted(judged, key=lambda case: (not case.quality.is_ood, case.quality.dice))
    rows = []
    for case in ranked[:_MOST_ROWS]:
        quality = case.quality
        numbers = (
            f"{quality.dice:.3f}",
            f"{quality.low:.3f} to {quality.high:.3f}",
            f"{case.dice:.3f}",
        )
        cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
        alarm = name_alarm(quality)
        badge = draw_badge(alarm or "like the training set", is_alarm=bool(alarm))
        rows.append(f'<tr><th scope="row">{escape(case.case_id)}</th>{cells}<td>{badge}</td></tr>')
    shown = f"the first {len(rows)} of {len(judged)}" if len(rows) < len(judged) else "all"
    return (
        f"<details><summary>Case by case, {shown}, least believed first</summary>"
        f"{draw_table(head, rows)}</details>"
    )


def _name(case: JudgedCase) -> str:
    return f"{case.case_id}: predicted {case.quality.dice:.3f}, true {case.dice:.3f}"

"""What a report says of the cases beyond their mean scores: spread, calibration, sizes, time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from segnetr.metrics.pixel_calibration import PixelReliability
from segnetr.outputs.charts.box_plot import BoxChart, draw_box_chart
from segnetr.outputs.charts.classification import draw_reliability
from segnetr.outputs.charts.dot_plot import DotChart, draw_dot_chart
from segnetr.outputs.reports.case_charts import chart_classes, chart_groups
from segnetr.outputs.reports.elements import align_number, draw_table
from segnetr.outputs.reports.quality_section import JudgedCase, judge_cases
from segnetr.outputs.reports.structure_sizes import agreement_charts, ejection_table, sizes_of
from segnetr.outputs.tables import case_records
from segnetr.outputs.tables import reliability as reliability_file
from segnetr.outputs.tables.case_records import CaseRecord, read_case_records
from segnetr.outputs.tables.reliability import read_reliability
from segnetr.outputs.tables.scores import read_per_case_csv


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSection:
    """Everything that is shown of the cases; all empty where nothing was scored.

    Attributes:
        boxes: Spread of the scores.
        agreement: Bland-Altman plots of sizes.
        ejections: Volumes and ejection fractions, one row a patient and ventricle.
        reliability: Probabilities against the ground truth.
        times: How long prediction took, by name.
        judged: Cases of which something was believed before they were scored.
    """

    boxes: Sequence[BoxChart] = ()
    agreement: Sequence[DotChart] = ()
    ejections: Sequence[Mapping[str, str]] = ()
    reliability: PixelReliability | None = None
    times: Mapping[str, str] = field(default_factory=dict)
    judged: Sequence[JudgedCase] = ()


def read_case_section(folder: Path) -> CaseSection:
    """Make the section of the files of an evaluation; an older one lacks some of them.

    Raises:
        ReadError: If a file is there and cannot be read.
    """
    table = folder / "per_case.csv"
    if not table.is_file():
        return CaseSection()
    scores = read_per_case_csv(table)
    records = read_case_records(folder / case_records.NAME)
    sizes, ejections = sizes_of(scores, records)
    return CaseSection(
        boxes=[*chart_classes(scores), *chart_groups(scores, records)],
        agreement=agreement_charts(sizes, ejections),
        ejections=ejection_table(ejections),
        reliability=read_reliability(folder / reliability_file.NAME),
        times=_describe_times(records),
        judged=judge_cases(scores, records),
    )


def draw_spread(section: CaseSection) -> str:
    """Draw the box plots."""
    return _draw_charts([draw_box_chart(chart) for chart in section.boxes])


def draw_sizes(section: CaseSection) -> str:
    """Draw how sizes agree, and the volumes of hearts as a table."""
    if not section.agreement:
        return ""
    synthetic = (
        "<p>Each dot is one case (of an ejection fraction, one patient): how much larger it is "
        "predicted than it is, against its size. Between the outer dashed lines lie 95 % of the "
        "differences, if they are normally distributed.</p>"
    )
    synthetic += _draw_charts([draw_dot_chart(chart) for chart in section.agreement])
    if not section.ejections:
        return synthetic
    words = ("patient", "ventricle")
    names = list(section.ejections[0])
    head = "".join(
        f'<th scope="col"{align_number(name not in words)}>{escape(name)}</th>' for name in names
    )
    rows = [
        "<tr>"
        + "".join(
            f"<td{align_number(name not in words)}>{escape(row[name])}</td>" for name in names
        )
        + "</tr>"
        for row in section.ejections
    ]
    return synthetic + "<h3>Volumes and ejection fractions</h3>" + draw_table(head, rows)


def draw_calibration(section: CaseSection) -> str:
    """Draw how often what was said with a probability is true."""
    found = section.reliability
    if found is None:
        return ""
    above = found.error_above_first
    doubt = "" if above is None else f"; {above:.4f} over those said to be so with 0.1 and more"
    return (
        '<div class="figures"><figure>'
        + draw_reliability(found.bins, what="pixels")
        + "<figcaption><strong>Can the probabilities be believed?</strong>Each dot is a tenth of "
        "the scale: what the network said of pixels being foreground, and how often they are. "
        "On the dashed line it is as often as was said. Expected calibration error "
        f"{found.error:.4f} over all pixels of {found.cases} cases, most of which are easy "
        f"background{doubt}.</figcaption></figure></div>"
    )


def _draw_charts(charts: Sequence[str]) -> str:
    panels = "".join(f'<div class="panel chart-panel">{chart}</div>' for chart in charts)
    return f'<div class="charts">{panels}</div>' if panels else ""


def _describe_times(records: Sequence[CaseRecord]) -> dict[str, str]:
    if not records:
        return {}
    seconds = np.array([record.seconds for record in records])
    middle, longest = np.median(seconds), seconds.max()
    return {
        "Prediction of a case": f"median {middle:.2f} s, longest {longest:.2f} s, "
        f"{len(seconds)} cases in {seconds.sum():.1f} s (reading and network)"
    }

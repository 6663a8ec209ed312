"""The part of a report about single cases: variation of scores, calibration, sizes, times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segnetr.metrics.pixel_calibration import PixelReliability
from segnetr.outputs.charts.box_plot import BoxChart, draw_box_chart
from segnetr.outputs.charts.classification import draw_reliability
from segnetr.outputs.charts.dot_plot import DotChart, draw_dot_chart
from segnetr.outputs.reports.case_charts import chart_agreement, chart_classes, chart_groups
from segnetr.outputs.reports.quality_section import (
    QualityCase,
    describe_quality_cases,
    pair_quality,
)
from segnetr.outputs.reports.rendering import HtmlTable, mark_svg
from segnetr.outputs.tables import case_records
from segnetr.outputs.tables import reliability as reliability_file
from segnetr.outputs.tables.case_records import CaseRecord, read_case_records
from segnetr.outputs.tables.reliability import read_reliability
from segnetr.outputs.tables.scores import read_per_case_csv
from segnetr.outputs.tables.structure_sizes import compute_sizes, ejection_table


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSection:
    """The results of single cases; everything is empty if nothing was scored.

    Attributes:
        boxes: Box plots of the scores.
        agreement: Bland-Altman plots of sizes.
        ejections: Volumes and ejection fractions, one row for each patient and ventricle.
        reliability: Predicted probabilities against the ground truth.
        times: Prediction time, by name.
        quality: Cases with a predicted quality.
    """

    boxes: Sequence[BoxChart] = ()
    agreement: Sequence[DotChart] = ()
    ejections: Sequence[Mapping[str, str]] = ()
    reliability: PixelReliability | None = None
    times: Mapping[str, str] = field(default_factory=dict)
    quality: Sequence[QualityCase] = ()


def read_case_section(folder: Path) -> CaseSection:
    """Read the files of an evaluation. Files that older versions did not write may be missing.

    Raises:
        ReadError: If a file exists and cannot be read.
    """
    table = folder / "per_case.csv"
    if not table.is_file():
        return CaseSection()
    scores = read_per_case_csv(table)
    records = read_case_records(folder / case_records.CASES_NAME)
    sizes, ejections = compute_sizes(scores, records)
    return CaseSection(
        boxes=[*chart_classes(scores), *chart_groups(scores, records)],
        agreement=chart_agreement(sizes, ejections),
        ejections=ejection_table(ejections),
        reliability=read_reliability(folder / reliability_file.RELIABILITY_NAME),
        times=_describe_times(records),
        quality=pair_quality(scores, records),
    )


def describe_cases(section: CaseSection) -> dict[str, object]:
    """Return the values that the template of the run report shows."""
    reliability = section.reliability
    chart = "" if reliability is None else draw_reliability(reliability.bins, unit="pixels")
    return {
        "box_charts": [mark_svg(draw_box_chart(chart)) for chart in section.boxes],
        "agreement_charts": [mark_svg(draw_dot_chart(chart)) for chart in section.agreement],
        "ejection_table": HtmlTable(
            headers=list(section.ejections[0]) if section.ejections else [],
            rows=[list(row.values()) for row in section.ejections],
            text_columns=("patient", "ventricle"),
            has_row_headers=False,
        ),
        "reliability_chart": mark_svg(chart),
        "calibration_text": "" if reliability is None else _describe_calibration(reliability),
        **describe_quality_cases(section.quality),
    }


def _describe_calibration(reliability: PixelReliability) -> str:
    above = reliability.error_above_first
    rest = "" if above is None else f"; {above:.4f} over those predicted with at least 0.1"
    return (
        f"Expected calibration error {reliability.error:.4f} over all pixels of "
        f"{reliability.cases} cases, most of which are easy background{rest}."
    )


def _describe_times(records: Sequence[CaseRecord]) -> dict[str, str]:
    if not records:
        return {}
    seconds = np.array([record.seconds for record in records])
    middle, longest = np.median(seconds), seconds.max()
    return {
        "Prediction of a case": f"median {middle:.2f} s, longest {longest:.2f} s, "
        f"{len(seconds)} cases in {seconds.sum():.1f} s (reading and network)"
    }

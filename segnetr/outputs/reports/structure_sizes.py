"""Sizes of structures as tables and as Bland-Altman plots."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segnetr.metrics import Score
from segnetr.metrics.structure_sizes import (
    Ejection,
    Size,
    measure_agreement,
    measure_ejections,
    measure_sizes,
)
from segnetr.outputs.charts.dot_plot import Dot, DotChart
from segnetr.outputs.tables.case_records import CaseRecord, patients_of
from segnetr.storage.manifest import write_text_atomic

SIZES_NAME, EJECTIONS_NAME = "sizes.csv", "ejection.csv"


def sizes_of(
    scores: Sequence[Score], records: Sequence[CaseRecord]
) -> tuple[list[Size], list[Ejection]]:
    """Give the sizes of all structures, and the ejection fractions where there are phases."""
    sizes = measure_sizes(
        scores,
        grids={record.case_id: record.grid for record in records},
        spacings={record.case_id: record.spacing for record in records},
    )
    phases = {r.case_id: r.facts["phase"] for r in records if "phase" in r.facts}
    return sizes, measure_ejections(sizes, patients=patients_of(records), phases=phases)


def write_sizes(folder: Path, scores: Sequence[Score], records: Sequence[CaseRecord]) -> None:
    """Write `sizes.csv`, and `ejection.csv` where there are phases of hearts.

    Raises:
        WriteError: If a file cannot be written.
    """
    sizes, ejections = sizes_of(scores, records)
    if sizes:
        write_text_atomic(folder / SIZES_NAME, _as_csv([_size_row(size) for size in sizes]))
    if ejections:
        rows = [_ejection_row(ejection) for ejection in ejections]
        write_text_atomic(folder / EJECTIONS_NAME, _as_csv(rows))


def ejection_table(ejections: Sequence[Ejection]) -> list[dict[str, str]]:
    """Give the volumes and fractions of each patient for people."""
    return [
        {
            key.replace("_", " "): value if isinstance(value, str) else _show(value)
            for key, value in _ejection_row(ejection).items()
        }
        for ejection in ejections
    ]


def agreement_charts(sizes: Sequence[Size], ejections: Sequence[Ejection]) -> list[DotChart]:
    """Give Bland-Altman plots: ejection fractions first, then the sizes of each class.

    Areas of images without spacing are shown as a share of the image, whose size differs.
    """
    charts = []
    for name in dict.fromkeys(ejection.class_name for ejection in ejections):
        pairs = [
            (e.patient_id, e.true_fraction, e.predicted_fraction)
            for e in ejections
            if e.class_name == name
        ]
        known = [(who, a, b) for who, a, b in pairs if a is not None and b is not None]
        charts += _draw(f"Ejection fraction, {name}", "%", known)
    for name in dict.fromkeys(size.class_name for size in sizes):
        own = [size for size in sizes if size.class_name == name]
        is_share = own[0].unit == "px"
        pairs_of_size = [
            (
                size.case_id,
                100 * size.true / size.whole if is_share else size.true,
                100 * size.predicted / size.whole if is_share else size.predicted,
            )
            for size in own
        ]
        title = f"{'Volume' if own[0].unit == 'ml' else 'Area'}, {name}"
        charts += _draw(title, "% of the image" if is_share else own[0].unit, pairs_of_size)
    return charts


def _draw(title: str, unit: str, pairs: Sequence[tuple[str, float, float]]) -> list[DotChart]:
    if not pairs:
        return []
    agreement = measure_agreement([a for _, a, _ in pairs], [b for _, _, b in pairs])
    levels = [(f"bias {agreement.bias:+.3g}", agreement.bias)]
    words = f"bias {agreement.bias:+.3g} {unit} over {agreement.pairs}"
    if agreement.low is not None and agreement.high is not None:
        levels += [
            (f"+1.96 SD {agreement.high:+.3g}", agreement.high),
            (f"-1.96 SD {agreement.low:+.3g}", agreement.low),
        ]
        words += f", limits of agreement {agreement.low:+.3g} to {agreement.high:+.3g}"
    return [
        DotChart(
            title=title,
            x_label=f"mean of ground truth and prediction ({unit})",
            y_label=f"prediction - ground truth ({unit})",
            dots=[
                Dot(name=f"{who}: ground truth {a:.3g}, prediction {b:.3g}", x=(a + b) / 2, y=b - a)
                for who, a, b in pairs
            ],
            levels=levels,
            words=words,
        )
    ]


def _size_row(size: Size) -> dict[str, Any]:
    return {
        "case_id": size.case_id,
        "class": size.class_name,
        "true": repr(size.true),
        "predicted": repr(size.predicted),
        "difference": repr(size.predicted - size.true),
        "unit": size.unit,
        "true_share": repr(size.true / size.whole),
        "predicted_share": repr(size.predicted / size.whole),
    }


def _ejection_row(ejection: Ejection) -> dict[str, Any]:
    return {
        "patient": ejection.patient_id,
        "ventricle": ejection.class_name,
        "true_ED_ml": ejection.true_ed,
        "predicted_ED_ml": ejection.predicted_ed,
        "true_ES_ml": ejection.true_es,
        "predicted_ES_ml": ejection.predicted_es,
        "true_EF_percent": ejection.true_fraction,
        "predicted_EF_percent": ejection.predicted_fraction,
    }


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()

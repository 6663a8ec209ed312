"""Sizes of structures and ejection fractions as tables: `sizes.csv`, `ejection.csv`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segnetr.metrics import Score
from segnetr.metrics.structure_sizes import Ejection, Size, measure_ejections, measure_sizes
from segnetr.outputs.tables.case_records import CaseRecord, map_patients
from segnetr.outputs.tables.csv_file import write_csv

SIZES_NAME, EJECTIONS_NAME = "sizes.csv", "ejection.csv"


def compute_sizes(
    scores: Sequence[Score], records: Sequence[CaseRecord]
) -> tuple[list[Size], list[Ejection]]:
    """Return the sizes of all structures, and the ejection fractions if the cases have phases."""
    sizes = measure_sizes(
        scores,
        grids={record.case_id: record.grid for record in records},
        spacings={record.case_id: record.spacing for record in records},
    )
    phases = {r.case_id: r.facts["phase"] for r in records if "phase" in r.facts}
    return sizes, measure_ejections(sizes, patients=map_patients(records), phases=phases)


def write_sizes(folder: Path, scores: Sequence[Score], records: Sequence[CaseRecord]) -> None:
    """Write `sizes.csv`, and `ejection.csv` if the cases have cardiac phases.

    Raises:
        WriteError: If a file cannot be written.
    """
    sizes, ejections = compute_sizes(scores, records)
    if sizes:
        write_csv(folder / SIZES_NAME, [_size_row(size) for size in sizes])
    if ejections:
        write_csv(folder / EJECTIONS_NAME, [_ejection_row(ejection) for ejection in ejections])


def ejection_table(ejections: Sequence[Ejection]) -> list[dict[str, str]]:
    """Return the volumes and ejection fractions of each patient as text with one decimal."""
    return [
        {
            key.replace("_", " "): value if isinstance(value, str) else _show(value)
            for key, value in _ejection_row(ejection).items()
        }
        for ejection in ejections
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

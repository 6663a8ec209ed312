"""Predicted quality of each mask as a table for spreadsheets: `predictions.csv`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segnetr.engine.inference.predictor import OODFlag, Quality
from segnetr.outputs.tables.csv_file import write_csv

COLUMNS = (
    "input",
    "mask",
    "predicted_dice",
    "dice_low",
    "dice_high",
    "level",
    "out_of_distribution",
    "ood_score",
    "reason",
)


def describe_quality(quality: Quality) -> dict[str, Any]:
    """Return the predicted quality of a mask as plain data, rounded to its accuracy."""
    return {
        "predicted_dice": round(quality.dice, 4),
        "dice_low": round(quality.low, 4),
        "dice_high": round(quality.high, 4),
        "level": quality.level,
        "out_of_distribution": quality.is_ood,
        "ood_score": round(quality.ood_score, 3),
        "reasons": list(quality.reasons),
    }


def describe_ood_flag(flag: OODFlag) -> dict[str, Any]:
    """Return an out-of-distribution flag as plain data, like `describe_quality` without a Dice."""
    return {
        "predicted_dice": None,
        "dice_low": None,
        "dice_high": None,
        "level": None,
        "out_of_distribution": flag.is_ood,
        "ood_score": round(flag.ood_score, 3),
        "reasons": list(flag.reasons),
    }


def write_predictions_table(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write one row for each mask. Cells are empty if its model predicts no quality.

    Args:
        path: The file.
        records: As in `predictions.json`: `input`, `mask`, and `quality` from `describe_quality`.

    Raises:
        WriteError: If the file cannot be written.
    """
    write_csv(path, [_make_row(record) for record in records], COLUMNS)


def _make_row(record: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: record.get(name, "") for name in COLUMNS[:2]}
    quality = record.get("quality")
    if isinstance(quality, Mapping):
        # An index of version 0.1 has "novelty".
        values = {"ood_score": quality.get("novelty", ""), **quality}
        row |= {name: values.get(name, "") for name in COLUMNS[2:-1]}
        row["out_of_distribution"] = "yes" if quality.get("out_of_distribution") else "no"
        row["reason"] = "; ".join(map(str, quality.get("reasons", ())))
    return row

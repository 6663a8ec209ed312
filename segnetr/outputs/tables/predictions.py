"""`predictions.csv`: what is believed about each mask, for spreadsheets."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segnetr.engine.inference.predictor import Quality
from segnetr.storage.manifest import write_text_atomic

COLUMNS = (
    "input",
    "mask",
    "predicted_dice",
    "dice_low",
    "dice_high",
    "level",
    "out_of_distribution",
    "novelty",
    "reason",
)


def describe_quality(quality: Quality) -> dict[str, Any]:
    """Give what is believed about a mask as plain data, rounded to what can be known."""
    return {
        "predicted_dice": round(quality.dice, 4),
        "dice_low": round(quality.low, 4),
        "dice_high": round(quality.high, 4),
        "level": quality.level,
        "out_of_distribution": quality.is_ood,
        "novelty": round(quality.ood_score, 3),
        "reasons": list(quality.reasons),
    }


def write_predictions_table(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write one row for each mask; cells stay empty where its model says nothing of it.

    Args:
        path: The file.
        records: As in `predictions.json`: `input`, `mask`, and `quality` from `describe_quality`.

    Raises:
        WriteError: If the file cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in records:
        row = {name: record.get(name, "") for name in COLUMNS[:2]}
        quality = record.get("quality")
        if isinstance(quality, Mapping):
            row |= {name: quality.get(name, "") for name in COLUMNS[2:-1]}
            row["out_of_distribution"] = "yes" if quality.get("out_of_distribution") else "no"
            row["reason"] = "; ".join(map(str, quality.get("reasons", ())))
        writer.writerow(row)
    write_text_atomic(path, text.getvalue())

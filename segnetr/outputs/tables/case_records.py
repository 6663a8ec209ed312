"""Properties of each scored case, in addition to its scores: `cases.json` of an evaluation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from segnetr.engine.quality.estimator import Quality
from segnetr.errors import ReadError
from segnetr.storage.manifest import write_json

CASES_NAME = "cases.json"
_FORMAT = "segnetr-cases-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRecord:
    """A scored case.

    Attributes:
        case_id: The case.
        patient_id: Its patient; None: not known.
        grid: (H, W) or (X, Y, Z) of its file.
        spacing: Size of a pixel along each axis in mm; None: not in the file.
        seconds: Time of reading and predicting it.
        facts: Attributes from its dataset, for example `group` or `phase`.
        quality: Predicted quality of its mask, computed without the ground truth; None: not
            predicted.
    """

    case_id: str
    patient_id: str | None
    grid: tuple[int, ...]
    spacing: tuple[float, ...] | None
    seconds: float
    facts: Mapping[str, str] = field(default_factory=dict)
    quality: Quality | None = None


def write_case_records(path: Path, records: Sequence[CaseRecord]) -> None:
    """Write the records of an evaluation.

    Raises:
        WriteError: If the file cannot be written.
    """
    write_json(path, {"format": _FORMAT, "cases": [asdict(record) for record in records]})


def read_case_records(path: Path) -> list[CaseRecord]:
    """Read the records of an evaluation. Return no records if the file does not exist.

    Raises:
        ReadError: If the file has another format.
    """
    if not path.is_file():
        return []
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}")
        return [
            CaseRecord(
                case_id=str(entry["case_id"]),
                patient_id=entry["patient_id"],
                grid=tuple(int(side) for side in entry["grid"]),
                spacing=None if entry["spacing"] is None else tuple(map(float, entry["spacing"])),
                seconds=float(entry["seconds"]),
                facts={str(name): str(text) for name, text in entry["facts"].items()},
                quality=_read_quality(entry.get("quality")),
            )
            for entry in content["cases"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReadError(path, f"not a list of cases ({error}); run segnetr evaluate") from error


def _read_quality(entry: Mapping[str, Any] | None) -> Quality | None:
    if entry is None:
        return None
    return Quality(
        **{name: float(entry[name]) for name in ("dice", "low", "high", "level")},
        # Version 0.1 wrote this score as "novelty" and the flag as "is_unlike".
        ood_score=float(entry["ood_score"] if "ood_score" in entry else entry["novelty"]),
        is_ood=bool(entry["is_ood"] if "is_ood" in entry else entry["is_unlike"]),
        reasons=tuple(map(str, entry["reasons"])),
    )


def map_patients(records: Sequence[CaseRecord]) -> dict[str, str]:
    """Return the patient of each case that has one."""
    return {record.case_id: record.patient_id for record in records if record.patient_id}

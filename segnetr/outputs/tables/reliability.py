"""Calibration of the predicted probabilities: `reliability.json` of an evaluation."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segnetr.errors import ReadError
from segnetr.metrics.pixel_calibration import PixelReliability, bins_from
from segnetr.storage.manifest import write_json

RELIABILITY_NAME = "reliability.json"
_FORMAT = "segnetr-reliability-1"


def write_reliability(path: Path, reliability: PixelReliability) -> None:
    """Write the bins.

    Raises:
        WriteError: If the file cannot be written.
    """
    write_json(path, {"format": _FORMAT, **asdict(reliability)})


def read_reliability(path: Path) -> PixelReliability | None:
    """Read the bins. Return None if the file does not exist.

    Raises:
        ReadError: If the file has another format.
    """
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}")
        return PixelReliability(
            bins=bins_from(content["bins"]),
            error=float(content["error"]),
            cases=int(content["cases"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError(path, f"not a reliability file ({error}); run segnetr evaluate") from error

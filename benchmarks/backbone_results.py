"""The results file of `backbones.py` and its table."""

import json
import sys
from pathlib import Path
from typing import Any

from segnetr.outputs.models.provenance import collect_provenance

Row = dict[str, Any]
# Rows that agree in these fields measure the same; the later one replaces the earlier one.
_IDENTITY = ("network", "mode", "by", "batch", "threads", "device")


def read_rows(path: Path) -> list[Row]:
    """Return the recorded rows; none if there is no file."""
    if not path.exists():
        return []
    rows: list[Row] = json.loads(path.read_text())["rows"]
    return rows


def merge_rows(known: list[Row], new: list[Row]) -> list[Row]:
    """Replace the rows that were measured again; keep the others."""
    merged = {_identify(row): row for row in known}
    for row in new:
        merged[_identify(row)] = {**merged.get(_identify(row), {}), **row}
    return [merged[key] for key in sorted(merged)]


def _identify(row: Row) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in _IDENTITY)


def write_rows(path: Path, rows: list[Row], *, device: str) -> None:
    """Write all rows, with the machine and versions of the last run."""
    made_by = collect_provenance(device=device)
    for package in ("timm", "transformers"):
        made_by["versions"][package] = getattr(sys.modules.get(package), "__version__", "not used")
    # Folders belong to this machine.
    made_by["command"] = [
        "FOLDER" if Path(word).is_absolute() else word for word in made_by["command"]
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"rows": rows, "made_by": made_by}, indent=2) + "\n")


def render_table(rows: list[Row]) -> str:
    """Return the results as Markdown, other packages first, then recorded times."""
    peers = [row for row in rows if row["mode"] != "original"]
    originals = [row for row in rows if row["mode"] == "original"]
    tables = [_peers_table(peers)] if peers else []
    return "\n\n".join([*tables, *([_originals_table(originals)] if originals else [])])


def _peers_table(rows: list[Row]) -> str:
    lines = ["| network | mode | by | seconds | ours is faster by | peak MiB |", "|---" * 6 + "|"]
    for row in rows:
        ratio = "" if row["by"] == "ours" else _number(row.get("ours_faster"), "{:.2f}x")
        cells = [row["network"], row["mode"], row["by"], _number(row.get("seconds"), "{:.3f}")]
        lines.append("| " + " | ".join([*cells, ratio, _number(row.get("peak_mib"), "{}")]) + " |")
    return "\n".join(lines)


def _originals_table(rows: list[Row]) -> str:
    lines = [
        "| network | ours, s | yardstick, s | published, s | yardstick there, s | ours is faster |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        names = ("seconds", "yardstick_seconds", "original_seconds", "original_yardstick_seconds")
        cells = [row["network"], *(f"{row[name]:.3f}" for name in names)]
        rough = "" if row["is_same_code"] else ", rough"
        lines.append("| " + " | ".join([*cells, f"{row['ours_faster']:.1f}x{rough}"]) + " |")
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "not measured" if value is None else form.format(value)

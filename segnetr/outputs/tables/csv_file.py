"""Tables as CSV files."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segnetr.storage.manifest import write_text_atomic

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def escape_formula(cell: Any) -> Any:
    """Return a cell that a spreadsheet does not run as a formula; `unescape_formula` undoes it.

    A text that starts with = + - @, a tab or a carriage return gets an apostrophe in front, as
    OWASP recommends ("CSV Injection"). Numbers are unchanged. A text of apostrophes
    before such a start gets one more, so that the original can be restored.
    """
    if not isinstance(cell, str) or not cell.lstrip("'").startswith(_FORMULA_STARTS):
        return cell
    return cell if _is_number(cell) else f"'{cell}"


def unescape_formula(cell: str) -> str:
    """Return the cell that `escape_formula` was given."""
    is_escaped = cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA_STARTS)
    return cell[1:] if is_escaped else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()


def format_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Return rows as CSV text, with a header. None becomes an empty cell.

    Args:
        rows: Cells by column.
        columns: Names of the columns; None: the keys of the first row.
    """
    text = io.StringIO(newline="")
    names = list(rows[0]) if columns is None else columns
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([escape_formula(name) for name in names])
    for row in rows:
        if unknown := set(row) - set(names):
            raise ValueError(f"cells without a column: {sorted(unknown)}")
        writer.writerow([escape_formula(row.get(name, "")) for name in names])
    return text.getvalue()


def write_csv(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write rows as a CSV file; see `format_csv`.

    Raises:
        WriteError: If the file cannot be written.
    """
    write_text_atomic(path, format_csv(rows, columns))

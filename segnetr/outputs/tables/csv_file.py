"""Tables as CSV files."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segnetr.storage.manifest import write_text_atomic


def format_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Return rows as CSV text, with a header. None becomes an empty cell.

    Args:
        rows: Cells by column.
        columns: Names of the columns; None: the keys of the first row.
    """
    text = io.StringIO(newline="")
    names = list(rows[0]) if columns is None else columns
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(
    path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write rows as a CSV file; see `format_csv`.

    Raises:
        WriteError: If the file cannot be written.
    """
    write_text_atomic(path, format_csv(rows, columns))

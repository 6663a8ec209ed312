"""Format tables as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a Markdown table. None is an empty cell; numbers have at most four decimals.

    Args:
        rows: Cells by column, all with the same keys.
    """
    if not rows:
        return ""
    names = list(rows[0])
    lines = [names, ["---"] * len(names), *([_show(row[name]) for name in names] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _show(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}".rstrip("0").rstrip(".")
    return str(value).replace("|", "\\|")

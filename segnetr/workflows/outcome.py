"""Results of workflows, as plain data and as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Outcome(Protocol):
    """A result that a command prints."""

    def to_dict(self) -> Mapping[str, Any]:
        """Return the result as plain data for JSON."""
        ...

    def __str__(self) -> str:
        """Return the result as lines of text."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainTable:
    """Rows with named columns.

    Attributes:
        name: Name of the rows, the key in JSON.
        rows: A mapping for each row, all with the same keys; numbers are not converted to text.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]

    def to_dict(self) -> Mapping[str, Any]:
        """Return the rows under their name."""
        return {self.name: [dict(row) for row in self.rows]}

    def __str__(self) -> str:
        """Return the rows as a text table."""
        from segnetr.outputs.tables.scores import text_table

        shown = [
            {key: "" if cell is None else cell for key, cell in row.items()} for row in self.rows
        ]
        return text_table(shown)

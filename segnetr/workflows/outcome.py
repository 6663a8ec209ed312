"""What a workflow gives back: facts for machines, a text for people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Outcome(Protocol):
    """A result that a command prints."""

    def to_dict(self) -> Mapping[str, Any]:
        """Give the result as plain data, ready for JSON."""
        ...

    def __str__(self) -> str:
        """Give the result as lines for people."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows with named columns.

    Attributes:
        name: What the rows are, the key in JSON.
        rows: One mapping a row, all with the same keys; numbers stay numbers.
    """

    name: str
    rows: Sequence[Mapping[str, Any]]

    def to_dict(self) -> Mapping[str, Any]:
        """Give the rows under their name."""
        return {self.name: [dict(row) for row in self.rows]}

    def __str__(self) -> str:
        """Align the rows in columns."""
        from segnetr.outputs.tables.scores import text_table

        shown = [
            {key: "" if cell is None else cell for key, cell in row.items()} for row in self.rows
        ]
        return text_table(shown)

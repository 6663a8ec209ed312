"""One file or folder of an archive, whatever the archive's format."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

CHUNK = 1 << 20
"""Most bytes that are held of a file at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file or folder, not looked at yet.

    Attributes:
        name: As the archive spells it; not to be trusted.
        is_folder: A folder, without bytes of its own.
        size: The bytes it claims to have.
        read: Gives its bytes in pieces; called before the next entry is asked for, or never.
    """

    name: str
    is_folder: bool
    size: int
    read: Callable[[], Iterator[bytes]]

"""The errors a user can cause or meet, each with the exit code of the command line.

Every message is one line that names the thing, the value and the way out.
"""

from collections.abc import Iterable
from pathlib import Path


class SegNetrError(Exception):
    """Anything that ends a command with one line instead of a traceback."""

    exit_code = 1


class UsageError(SegNetrError):
    """Wrong usage or configuration: a flag, a name, a folder that is not there."""

    exit_code = 2


class DataError(SegNetrError):
    """A data set with issues, which training refuses unless told to leave them out."""

    exit_code = 4


class ReadError(SegNetrError):
    """One image, mask or volume that cannot be read or cannot be trusted."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ReadError"], tuple[Path, str]]:
        """Survive the way from a worker process to its parent."""
        return type(self), (self.path, self.reason)


class ArchiveError(DataError):
    """An archive that is torn, is not what its name says, or attacks the one who unpacks it."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason


class DownloadError(SegNetrError):
    """A file that a server did not give, or did not give right."""


class WriteError(SegNetrError):
    """A file that could not be written: read-only folder, full disk."""


class ModelFileError(SegNetrError):
    """A model folder or checkpoint that is torn, changed or foreign."""


def find_closest(word: str, known: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """Return the known word that is most similar to a word, or None if none is similar.

    Args:
        word: The unknown word.
        known: The valid words.
        cutoff: Least similarity, 0 to 1.
    """
    from difflib import get_close_matches  # takes 10 ms, and most commands never need it

    matches = get_close_matches(word.lower(), list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'? " for the closest known word, or "" if none is close."""
    closest = find_closest(word, known)
    return "" if closest is None else f"did you mean {closest!r}? "


def unknown_name(kind: str, name: str, known: Iterable[str], *, see: str = "") -> UsageError:
    """Return the error for a name that is not in a table.

    The message ends with the closest name, or with all names if none is close.

    Args:
        kind: Kind of the name in messages, for example "loss".
        name: The unknown name.
        known: The names in the table.
        see: Command that lists the names, if there is one.
    """
    names = list(known)
    hint = suggest(name, names).strip() or f"known: {', '.join(names)}"
    return UsageError(f"unknown {kind} {name!r}; {hint}{f' ({see})' if see else ''}")

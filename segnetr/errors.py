"""The errors that end a command, each with the exit code of the command line.

Every message is one line that names the object, the value and the fix.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

STOP_CODES: Final[Mapping[str, int]] = {
    "interrupted": 130,
    "terminated": 143,
    "hangup": 129,
    "usr1": 138,
    "usr2": 140,
}
"""Exit code of a command that a signal stopped: 128 plus the number of the signal on Linux."""


class SegNetrError(Exception):
    """Base class of the errors that are printed as one line instead of a traceback."""

    exit_code = 1


class UsageError(SegNetrError):
    """Invalid usage or configuration: a flag, a name, a missing folder."""

    exit_code = 2


class DataError(SegNetrError):
    """A dataset with issues; training refuses it unless it is told to skip invalid cases."""

    exit_code = 4


class NothingScoredError(SegNetrError):
    """An evaluation without any case that could be scored."""

    exit_code = 3


class ReadError(SegNetrError):
    """An image, mask or volume that cannot be read or cannot be trusted."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ReadError"], tuple[Path, str]]:
        """Return the arguments for pickling, so that worker processes can raise it."""
        return type(self), (self.path, self.reason)


class ArchiveError(DataError):
    """An archive that is truncated, has the wrong type, or is malicious."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason


class DownloadError(SegNetrError):
    """A file that a server did not deliver, or delivered incomplete or changed."""


class WriteError(SegNetrError):
    """A file that could not be written, for example because the disk is full."""


class ModelFileError(SegNetrError):
    """A model folder or checkpoint that is damaged, changed or not ours."""


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

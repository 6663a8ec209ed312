"""Limits on the size and the names of archive members.

A name must denote the same path on every supported system. So a name that any of them reads
differently (a drive letter, a backslash, different letter case, another Unicode form of an accent)
is rejected on all.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segnetr.errors import ArchiveError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one archive. The largest official one has some 4000 files and 30 GB.

    Attributes:
        files: Most files and folders.
        total_bytes: Most bytes, unpacked.
        ratio: Most bytes unpacked for each byte of the archive; deflate reaches 1032.
        ratio_floor: Bytes up to which the ratio is not judged: a small table may shrink well.
    """

    files: int = 200_000
    total_bytes: int = 200 << 30
    ratio: float = 100.0
    ratio_floor: int = 32 << 20


class ExtractionBudget:
    """Counts what comes out of one archive and stops it at the limits.

    Args:
        path: The archive, for messages.
        limits: The bounds.
        archive_bytes: Size of the archive.
    """

    def __init__(self, path: Path, limits: Limits, *, archive_bytes: int) -> None:
        self._path = path
        self._limits = limits
        self._archive_bytes = max(1, archive_bytes)
        self.entries = 0
        self.bytes = 0

    def count_entry(self) -> None:
        """Count a file or folder.

        Raises:
            ArchiveError: If there are too many.
        """
        self.entries += 1
        if self.entries > self._limits.files:
            raise ArchiveError(
                self._path,
                f"holds more than {self._limits.files} files and folders; if that is right, "
                "raise --max-files",
            )

    def count_bytes(self, number: int) -> None:
        """Count bytes that were unpacked.

        Raises:
            ArchiveError: If there are too many, or too many for the size of the archive.
        """
        self.bytes += number
        if self.bytes > self._limits.total_bytes:
            raise ArchiveError(
                self._path,
                f"unpacks to more than {self._limits.total_bytes} bytes; if that is right, "
                "raise --max-gib",
            )
        most = max(self._limits.ratio_floor, self._limits.ratio * self._archive_bytes)
        if self.bytes > most:
            raise ArchiveError(
                self._path,
                f"unpacks to more than {self._limits.ratio:g} times its own size of "
                f"{self._archive_bytes} bytes, as an archive bomb does; if that is right, "
                "raise --max-ratio",
            )


_MOST_BYTES = 1024
_MOST_PART_BYTES = 240  # file systems take 255; some room for what is put beside a file
_MOST_DEPTH = 32
# Control, format (direction marks, zero-width), lone surrogates (not UTF-8), private, unassigned,
# line and paragraph separators.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_JUNK = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db"})


def split_name(raw: str) -> tuple[str, ...]:
    """Split a name of an archive into its parts, below the folder it is unpacked to.

    Args:
        raw: The name as the archive has it, `/` between folders.

    Returns:
        The parts; empty for the top folder itself.

    Raises:
        ValueError: If the name points elsewhere or is not the same on every system; the message
            says why, in a few words.
    """
    for letter in raw:
        if unicodedata.category(letter) in _REFUSED_CATEGORIES:
            raise ValueError(f"has the character U+{ord(letter):04X} in its name")
    if "\\" in raw or ":" in raw:
        raise ValueError("has a backslash or a colon in its name, as drives of Windows do")
    if raw.startswith("/"):
        raise ValueError("is an absolute path")
    parts = tuple(part for part in raw.split("/") if part not in {"", "."})
    if ".." in parts:
        raise ValueError("points out of its folder")
    if len(parts) > _MOST_DEPTH or len(raw.encode()) > _MOST_BYTES:
        raise ValueError("has a name that is too long")
    for part in parts:
        _check_part(part)
    return parts


def is_junk(parts: Sequence[str]) -> bool:
    """Tell whether a file is what operating systems leave behind: `._*`, `__MACOSX` and so on."""
    return any(part in _JUNK or part.startswith("._") for part in parts)


def show_name(raw: str) -> str:
    """Give a name for a message: quoted, in ASCII, cut where it is long."""
    shown = ascii(raw)
    return shown if len(shown) <= 100 else f"{shown[:80]}...'"


class NameRegistry:
    """Remembers the names of one archive and refuses what cannot stand beside them."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[str, bool]] = {}

    def add(self, parts: Sequence[str], *, is_folder: bool) -> None:
        """Take a name in.

        Args:
            parts: As `split_name` gives them.
            is_folder: A folder may be named any number of times.

        Raises:
            ValueError: If the name is there already, differs from one that is there in case or
                accents only, or makes a folder of a file; the message says which, in a few words.
        """
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            kind = is_folder or depth < len(parts)
            spelled, was_folder = self._entries.setdefault(_fold(name), (name, kind))
            if spelled != name:
                raise ValueError(
                    f"differs from {show_name(spelled)} in upper and lower case or accents only"
                )
            if kind != was_folder:
                raise ValueError("is a file and a folder at once")
        if not is_folder and not self._is_new_file("/".join(parts)):
            raise ValueError("is in it twice")

    def _is_new_file(self, name: str) -> bool:
        # A marker that no folded name can have.
        marker = f"{name}/"
        if marker in self._entries:
            return False
        self._entries[marker] = (name, False)
        return True


def _check_part(part: str) -> None:
    if len(part.encode()) > _MOST_PART_BYTES:
        raise ValueError("has a name that is too long")
    if part[-1] in ". ":
        raise ValueError("has a name that ends with a dot or a space")
    if _DEVICE.fullmatch(part):
        raise ValueError("has the name of a device of Windows")


def _fold(name: str) -> str:
    folded = unicodedata.normalize("NFC", name).casefold()
    return unicodedata.normalize("NFC", folded)

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

_MAX_NAME_BYTES = 1024
_MAX_PART_BYTES = 240  # file systems allow 255; the rest is for suffixes of temporary files
_MAX_DEPTH = 32
# Control, format (direction marks, zero-width), lone surrogates (not UTF-8), private, unassigned,
# line and paragraph separators.
_REJECTED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_JUNK = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """Limits for one archive. The largest official archive has about 4000 files and 30 GB.

    Attributes:
        files: Maximum number of files and folders.
        total_bytes: Maximum extracted size.
        ratio: Maximum extracted bytes per byte of the archive. Deflate reaches 1032.
        ratio_floor: The ratio is not checked below this size, since small tables compress well.
    """

    files: int = 200_000
    total_bytes: int = 200 << 30
    ratio: float = 100.0
    ratio_floor: int = 32 << 20


class ExtractionBudget:
    """Counts the extracted members and bytes of one archive, and stops at the limits.

    Args:
        path: The archive, for messages.
        limits: The limits.
        archive_bytes: Size of the archive.
    """

    def __init__(self, path: Path, limits: ArchiveLimits, *, archive_bytes: int) -> None:
        self._path = path
        self._limits = limits
        self._archive_bytes = max(1, archive_bytes)
        self._members = 0
        self._bytes = 0

    def count_member(self) -> None:
        """Count a file or folder.

        Raises:
            ArchiveError: If there are too many.
        """
        self._members += 1
        if self._members > self._limits.files:
            raise ArchiveError(
                self._path,
                f"holds more than {self._limits.files} files and folders; if that is right, "
                "raise --max-files",
            )

    def count_bytes(self, number: int) -> None:
        """Count extracted bytes.

        Raises:
            ArchiveError: If there are too many, or too many for the size of the archive.
        """
        self._bytes += number
        if self._bytes > self._limits.total_bytes:
            raise ArchiveError(
                self._path,
                f"expands to more than {self._limits.total_bytes} bytes; if that is right, "
                "raise --max-gib",
            )
        most = max(self._limits.ratio_floor, self._limits.ratio * self._archive_bytes)
        if self._bytes > most:
            raise ArchiveError(
                self._path,
                f"expands to more than {self._limits.ratio:g} times its size of "
                f"{self._archive_bytes} bytes, as in an archive bomb; if that is right, "
                "raise --max-ratio",
            )


def split_member_name(raw: str) -> tuple[str, ...]:
    """Split the name of an archive member into path components.

    Args:
        raw: The name in the archive, with `/` between folders.

    Returns:
        The components, relative to the target folder. Empty for the top folder itself.

    Raises:
        ValueError: If the name leaves the folder or is not portable. The message is the reason.
    """
    _check_characters(raw)
    if raw.startswith("/"):
        raise ValueError("is an absolute path")
    parts = tuple(part for part in raw.split("/") if part not in {"", "."})
    if ".." in parts:
        raise ValueError("points out of its folder")
    if len(parts) > _MAX_DEPTH or len(raw.encode()) > _MAX_NAME_BYTES:
        raise ValueError("has a name that is too long")
    for part in parts:
        _check_part(part)
    return parts


def _check_characters(raw: str) -> None:
    """Raise ValueError if a name contains a character that is not portable."""
    for letter in raw:
        if unicodedata.category(letter) in _REJECTED_CATEGORIES:
            raise ValueError(f"has the character U+{ord(letter):04X} in its name")
    if "\\" in raw or ":" in raw:
        raise ValueError("has a backslash or a colon in its name, as in Windows paths")


def is_junk(parts: Sequence[str]) -> bool:
    """Return whether an operating system created the file: `._*`, `__MACOSX` and so on."""
    return any(part in _JUNK or part.startswith("._") for part in parts)


def show_name(raw: str) -> str:
    """Return a name for a message: quoted, in ASCII, shortened if it is long."""
    shown = ascii(raw)
    return shown if len(shown) <= 100 else f"{shown[:80]}...'"


class NameRegistry:
    """The names of one archive. Rejects names that are in conflict with earlier ones."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[str, bool]] = {}
        self._files: set[str] = set()

    def add(self, parts: Sequence[str], *, is_folder: bool) -> None:
        """Add a name.

        Args:
            parts: The result of `split_member_name`.
            is_folder: Folders may be added repeatedly.

        Raises:
            ValueError: If the name exists, differs from an existing name only in case or accents,
                or is both a file and a folder. The message is the reason.
        """
        name = ""
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            kind = is_folder or depth < len(parts)
            spelled, was_folder = self._kinds.setdefault(_fold(name), (name, kind))
            if spelled != name:
                raise ValueError(
                    f"differs from {show_name(spelled)} in upper and lower case or accents only"
                )
            if kind != was_folder:
                raise ValueError("is a file and a folder at once")
        if not is_folder:
            if name in self._files:
                raise ValueError("is in it twice")
            self._files.add(name)


def _check_part(part: str) -> None:
    if len(part.encode()) > _MAX_PART_BYTES:
        raise ValueError("has a name that is too long")
    if part[-1] in ". ":
        raise ValueError("has a name that ends with a dot or a space")
    if _WINDOWS_DEVICE.fullmatch(part):
        raise ValueError("has the name of a device of Windows")


def _fold(name: str) -> str:
    folded = unicodedata.normalize("NFC", name).casefold()
    return unicodedata.normalize("NFC", folded)

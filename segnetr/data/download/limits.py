"""How much an archive may become, judged by what comes out of it and never by what it claims."""

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


class Meter:
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

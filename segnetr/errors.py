"""The errors a user can cause or meet, each with the exit code of the command line.

Every message is one line that names the thing, the value and the way out.
"""

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

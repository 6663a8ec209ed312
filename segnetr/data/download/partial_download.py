"""A file that is being downloaded: its bytes so far, and of which version of the file they are."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from segnetr.storage.disk_errors import as_write_error, replace_text, write_all
from segnetr.storage.fsync import sync_file, sync_folder

_ADD = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What a server says about the file it gives.

    Attributes:
        address: Where the file was asked for.
        etag: Its strong tag; None where there is none.
        modified: Time of its last change, as the server writes it; None where it says none.
        total: Bytes it is claimed to have; None where nothing is said.
    """

    address: str
    etag: str | None = None
    modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """What `If-Range` sends, so that a changed file is sent whole."""
        return self.etag or self.modified


class Partial:
    """The bytes so far, as `NAME.part`, and their version, as `NAME.part.json`.

    Args:
        target: The file they are to become.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._facts = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        """The bytes that are there."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self, address: str) -> Version | None:
        """Give the version of the bytes; None if they are of another address or nobody knows."""
        try:
            version = Version(**json.loads(self._facts.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return version if version.address == address else None

    def begin(self, version: Version) -> None:
        """Throw the bytes away and note the version of those that will come.

        Raises:
            WriteError: If the folder cannot be written.
        """
        self.discard()
        replace_text(self._facts, json.dumps(asdict(version)))

    def discard(self) -> None:
        """Throw the bytes away.

        Raises:
            WriteError: If they cannot be removed.
        """
        with as_write_error(self.path):
            self.path.unlink(missing_ok=True)
            self._facts.unlink(missing_ok=True)

    @contextlib.contextmanager
    def append(self) -> Iterator[int]:
        """Open the file for more bytes and give its descriptor.

        Raises:
            WriteError: If it cannot be opened.
        """
        with as_write_error(self.path):
            descriptor = os.open(self.path, _ADD, 0o644)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def add(self, descriptor: int, data: bytes) -> None:
        """Write more bytes.

        Raises:
            WriteError: If the disk is full, say; what is there stays for another try.
        """
        with as_write_error(self.path):
            write_all(descriptor, data)

    def finish(self) -> Path:
        """Force the bytes to the disk and give the file its name.

        Raises:
            WriteError: If it cannot be done.
        """
        with as_write_error(self._target):
            sync_file(self.path)
            self.path.replace(self._target)
            self._facts.unlink(missing_ok=True)
            sync_folder(self._target.parent)
        return self._target

"""Install files into a data folder atomically.

    DIR/.segnetr-prepare/lock            locked during a run
    DIR/.segnetr-prepare/journal.json    the planned moves; once written, all of them are completed
    DIR/.segnetr-prepare/contents/       the files to move into DIR
    DIR/.segnetr-prepared.json           the record of installed archives; a second run does nothing

A run that is killed before the journal is written leaves nothing. A run that is killed later is
completed by the next run.
"""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from segnetr.errors import ReadError, UsageError, WriteError
from segnetr.storage.disk_errors import DATA_DIR, as_write_error, replace_text
from segnetr.storage.fsync import sync_folder, sync_tree

_STAGING = ".segnetr-prepare"
_RECORD = ".segnetr-prepared.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledArchive:
    """The record of an installed archive or folder.

    Attributes:
        dataset: Name of the dataset.
        name: File name of the archive or folder.
        sha256: Hash of the archive, or of the listing of a folder (names, sizes, times).
        size: Size in bytes.
        mtime_ns: Modification time of the archive in nanoseconds; 0 for a folder.
        entries: Its files and folders at the top of the data folder.
        files: Number of files.
        is_official: Whether a published hash verified it.
    """

    dataset: str
    name: str
    sha256: str
    size: int
    mtime_ns: int
    entries: tuple[str, ...]
    files: int
    is_official: bool


class Transaction:
    """The temporary folder of one run. Use `open_transaction` to create it.

    Attributes:
        data_dir: The data folder.
        contents: A folder on the same disk, whose content `commit` moves to the data folder.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._folder = data_dir / _STAGING
        self.contents = self._folder / "contents"

    def fresh_folder(self, name: str) -> Path:
        """Create an empty folder next to `contents`.

        Raises:
            WriteError: If it cannot be created.
        """
        folder = self._folder / name
        with as_write_error(folder, option=DATA_DIR):
            folder.mkdir()
        return folder

    def commit(self, prepared: Sequence[InstalledArchive]) -> None:
        """Move all contents into the data folder, or none of them after an error.

        Args:
            prepared: The records to add.

        Raises:
            UsageError: If a file exists already.
            WriteError: If a file cannot be moved.
        """
        moves = plan_moves(self.contents, self.data_dir)
        kept = [item for item in read_record(self.data_dir) if item.name not in _names(prepared)]
        record = [_plain(item) for item in (*kept, *prepared)]
        with as_write_error(self.contents, option=DATA_DIR):
            sync_tree(self.contents)
        journal = {"moves": [str(move) for move in moves], "record": record}
        replace_text(self._journal, json.dumps(journal))
        try:
            self._finish(journal)
        except WriteError:
            # If the rollback fails too, the journal stays, and the next run completes the moves.
            with contextlib.suppress(OSError):
                for move in moves:
                    if not os.path.lexists(self.contents / move):
                        (self.data_dir / move).rename(self.contents / move)
                self._journal.unlink()
            raise

    def recover(self) -> None:
        """Complete the moves of a killed run, and remove its other files.

        Raises:
            WriteError: If this fails.
        """
        if self._journal.exists():
            self._finish(_read_json(self._journal))
        with as_write_error(self.contents, option=DATA_DIR):
            self.clear()
            self.contents.mkdir(mode=0o700)

    def clear(self) -> None:
        """Remove files that were not committed. `OSError` is not converted."""
        if self._journal.exists():
            return
        for path in self._folder.iterdir():
            if path.name != "lock":
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    @property
    def _journal(self) -> Path:
        return self._folder / "journal.json"

    def _finish(self, journal: Mapping[str, Any]) -> None:
        for move in journal["moves"]:
            source, target = self.contents / move, self.data_dir / move
            with as_write_error(target, option=DATA_DIR):
                if os.path.lexists(source):
                    source.rename(target)
                    sync_folder(target.parent)
        text = json.dumps({"version": 1, "archives": journal["record"]}, indent=2)
        replace_text(self.data_dir / _RECORD, text + "\n")
        with as_write_error(self._journal, option=DATA_DIR):
            self._journal.unlink()


@contextlib.contextmanager
def open_transaction(data_dir: Path) -> Iterator[Transaction]:
    """Lock a data folder, and remove everything that was not committed.

    Raises:
        UsageError: If another process prepares data in it.
        WriteError: If it cannot be written.
    """
    transaction = Transaction(data_dir)
    folder = data_dir / _STAGING
    with as_write_error(data_dir, option=DATA_DIR):
        made = [path for path in (data_dir, *data_dir.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with _hold(folder / "lock", data_dir):
            transaction.recover()
            try:
                yield transaction
            finally:
                with contextlib.suppress(OSError):
                    transaction.clear()
    finally:
        _remove_empty(folder, made)


def plan_moves(source: Path, target: Path) -> list[PurePosixPath]:
    """Return the renames that move the content of a folder into another.

    A folder that does not exist in the target is moved as a whole, others are merged.

    Returns:
        Sorted paths, relative to both folders. Their parents exist in the target.

    Raises:
        UsageError: If a file exists already.
    """
    moves = []
    for path in sorted(source.iterdir()):
        existing = target / path.name
        if not os.path.lexists(existing):
            moves.append(PurePosixPath(path.name))
        elif path.is_dir() and existing.is_dir():
            moves += [path.name / move for move in plan_moves(path, existing)]
        else:
            raise UsageError(
                f"{existing}: exists and was not installed from this archive; move it away "
                "or choose another --data-dir"
            )
    return moves


def read_record(data_dir: Path) -> list[InstalledArchive]:
    """Return the installed archives of a folder, without those whose files were moved away.

    Raises:
        ReadError: If the record is damaged.
    """
    path = data_dir / _RECORD
    if not path.is_file():
        return []
    try:
        found = [
            InstalledArchive(**{**row, "entries": tuple(row["entries"])})
            for row in _read_json(path)["archives"]
        ]
    except (KeyError, TypeError) as error:
        raise ReadError(path, f"damaged or changed ({error!r}); remove it") from error
    return [item for item in found if _is_there(data_dir, item)]


def _is_there(data_dir: Path, item: InstalledArchive) -> bool:
    entries = [PurePosixPath(entry) for entry in item.entries]
    return bool(entries) and all(
        not entry.is_absolute() and ".." not in entry.parts and (data_dir / entry).exists()
        for entry in entries
    )


def _names(prepared: Sequence[InstalledArchive]) -> set[str]:
    return {item.name for item in prepared}


def _plain(item: InstalledArchive) -> dict[str, Any]:
    return {**asdict(item), "entries": list(item.entries)}


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise ReadError(path, f"damaged or changed ({error}); remove it") from error


@contextlib.contextmanager
def _hold(lock: Path, data_dir: Path) -> Iterator[None]:
    """Hold a lock that the system releases when the process ends."""
    with as_write_error(lock, option=DATA_DIR):
        descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"{data_dir}: another process prepares data there; wait until it is done"
                ) from error
        yield
    finally:
        os.close(descriptor)


def _remove_empty(folder: Path, made: Sequence[Path]) -> None:
    with contextlib.suppress(OSError):
        if all(path.name == "lock" for path in folder.iterdir()):
            (folder / "lock").unlink(missing_ok=True)
            folder.rmdir()
        for path in made:
            path.rmdir()

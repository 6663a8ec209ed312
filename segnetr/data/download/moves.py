"""How files get from one folder into another without touching what is there."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segnetr.data.download.archive_member import CHUNK
from segnetr.data.download.limits import Limits
from segnetr.data.download.safe_names import NameLedger, is_junk, show_name, split_name
from segnetr.errors import ArchiveError, ReadError, UsageError
from segnetr.storage.disk_errors import as_write_error, write_new_file


def plan_moves(source: Path, target: Path) -> list[PurePosixPath]:
    """Find what has to be renamed so that all of a folder comes to lie in another.

    A folder that the target lacks is moved whole; one that it has is entered.

    Returns:
        Paths below both folders, sorted; parents of each are in the target already.

    Raises:
        UsageError: If a file would take the place of another one.
    """
    moves = []
    for path in sorted(source.iterdir()):
        there = target / path.name
        if not os.path.lexists(there):
            moves.append(PurePosixPath(path.name))
        elif path.is_dir() and there.is_dir():
            moves += [path.name / move for move in plan_moves(path, there)]
        else:
            raise UsageError(
                f"{there}: is there already and was not prepared from this archive; move it away "
                "or choose another --data-dir"
            )
    return moves


def move_into(source: Path, target: Path, *, name: Path) -> None:
    """Move all of a folder of ours into another one of ours.

    Args:
        source: What to move.
        target: Where to.
        name: The archive it came from, for messages.

    Raises:
        ArchiveError: If a file is in both, that is, if two archives hold it.
        WriteError: If it cannot be done.
    """
    try:
        moves = plan_moves(source, target)
    except UsageError as error:
        raise ArchiveError(name, "holds a file that another --source holds too") from error
    for move in moves:
        with as_write_error(target / move):
            (source / move).rename(target / move)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFile:
    """A file of a folder of the user's.

    Attributes:
        path: Where it is.
        parts: Its name below the folder, part by part.
        size: In bytes.
        mtime_ns: Time of its last change in nanoseconds.
    """

    path: Path
    parts: tuple[str, ...]
    size: int
    mtime_ns: int


def list_folder(folder: Path, *, limits: Limits) -> list[FolderFile]:
    """List the files of a folder that was unpacked by somebody, by name.

    Raises:
        ArchiveError: If a name cannot be used, there are links, devices, or too much.
        ReadError: If the folder cannot be read.
    """
    ledger, files, total = NameLedger(), [], 0
    for path, status in _walk(folder):
        name = path.relative_to(folder).as_posix()
        try:
            parts = split_name(name)
            ledger.add(parts, is_folder=False)
        except ValueError as error:
            raise ArchiveError(folder, f"{show_name(name)} in it {error}") from error
        if is_junk(parts) or parts[0].startswith(".segnetr-"):
            continue
        total += status.st_size
        files.append(
            FolderFile(path=path, parts=parts, size=status.st_size, mtime_ns=status.st_mtime_ns)
        )
        if len(files) > limits.files or total > limits.total_bytes:
            raise ArchiveError(
                folder,
                "holds more than --max-files or --max-gib allow; raise them if that is right",
            )
    return sorted(files, key=lambda file: file.parts)


def _walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(path)
            elif entry.is_file(follow_symlinks=False):
                yield path, entry.stat(follow_symlinks=False)
            else:
                raise ArchiveError(path, "is a link or a device; only files and folders are copied")
    except OSError as error:
        raise ReadError(folder, f"cannot be read ({error.strerror or error})") from error


def copy_file(source: Path, target: Path) -> int:
    """Copy a file's bytes to a place where nothing is yet.

    Returns:
        The bytes copied.

    Raises:
        ReadError: If it cannot be read.
        WriteError: If it cannot be written.
    """
    with as_write_error(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    return write_new_file(target, _read_chunks(source))


def _read_chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror or error})") from error

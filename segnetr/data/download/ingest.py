"""Check the sources that a user names, and collect their files in the folder of a transaction."""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from segnetr.data.download.extract import ARCHIVE_SUFFIXES, CHUNK, extract_archive
from segnetr.data.download.safe_names import (
    ArchiveLimits,
    NameRegistry,
    is_junk,
    show_name,
    split_member_name,
)
from segnetr.data.download.sources import Archive, check_official, digest_file, find_official
from segnetr.data.download.transaction import InstalledArchive, Transaction, plan_moves
from segnetr.errors import ArchiveError, ReadError, UsageError
from segnetr.storage.disk_errors import DATA_DIR, as_write_error, require_space, write_new_file


def move_into(source: Path, target: Path, *, name: Path) -> None:
    """Move the content of a folder into another folder.

    Args:
        source: The folder to empty.
        target: The folder to fill.
        name: The archive, for messages.

    Raises:
        ArchiveError: If a file exists in both, so that two archives hold it.
        WriteError: If a file cannot be moved.
    """
    try:
        moves = plan_moves(source, target)
    except UsageError as error:
        raise ArchiveError(name, "holds a file that another --source holds too") from error
    for move in moves:
        with as_write_error(target / move, option=DATA_DIR):
            (source / move).rename(target / move)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFile:
    """A file in a folder of the user.

    Attributes:
        path: The path of the file.
        parts: Its path components, relative to the folder.
        size: Size in bytes.
        mtime_ns: Modification time in nanoseconds.
    """

    path: Path
    parts: tuple[str, ...]
    size: int
    mtime_ns: int


def list_folder(folder: Path, *, limits: ArchiveLimits) -> list[FolderFile]:
    """List the files of an extracted folder, sorted by name.

    Raises:
        ArchiveError: If a name is rejected, or there are links, devices or too many files.
        ReadError: If the folder cannot be read.
    """
    registry, files, total = NameRegistry(), [], 0
    for path, status in _walk(folder):
        name = path.relative_to(folder).as_posix()
        try:
            parts = split_member_name(name)
            registry.add(parts, is_folder=False)
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
    """Copy a file to a path that does not exist yet.

    Returns:
        The number of bytes.

    Raises:
        ReadError: If the source cannot be read.
        WriteError: If the target cannot be written.
    """
    with as_write_error(target, option=DATA_DIR):
        target.parent.mkdir(parents=True, exist_ok=True)
    return write_new_file(target, _read_chunks(source))


def _read_chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror or error})") from error


StartProgress = Callable[[str, int], AbstractContextManager[Callable[[int, int], None]]]
"""Starts a progress display from a name and a number of bytes, and yields its update function."""

_KEPT_SUFFIXES = (".npz", ".csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """Settings for all sources of one run.

    Attributes:
        dataset: Name of the dataset.
        archives: Its official archives.
        limits: Limits for one source.
        task: Shows progress.
    """

    dataset: str
    archives: Sequence[Archive]
    limits: ArchiveLimits
    task: StartProgress


def list_sources(sources: Sequence[Path], archives: Sequence[Archive]) -> list[Path]:
    """Replace each folder that holds archives by its archives.

    Raises:
        UsageError: If a source does not exist or cannot be listed.
    """
    official = {archive.name for archive in archives}
    found: list[Path] = []
    for source in sources:
        if not source.exists():
            raise UsageError(f"--source {source}: no such file or folder")
        if source.is_dir():
            packed = _list_archives(source, official)
            is_unpacked = all(path.name.endswith(_KEPT_SUFFIXES) for path in packed)
            found += [source] if is_unpacked else packed
        else:
            found.append(source)
    return found


def _list_archives(folder: Path, official: Collection[str]) -> list[Path]:
    """Return the files of a folder that are archives, by their name or by their suffix."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise UsageError(f"--source {folder}: {error.strerror or error}") from error
    return [
        path
        for path in files
        if path.name in official or path.name.lower().endswith(ARCHIVE_SUFFIXES)
    ]


def find_known(
    source: Path, record: Sequence[InstalledArchive], *, limits: ArchiveLimits
) -> InstalledArchive | None:
    """Return the record of an earlier run for an unchanged source, without reading its content.

    Raises:
        ReadError: If the source cannot be read.
    """
    if source.is_dir():
        listing = _digest_listing(list_folder(source, limits=limits))
        same = [item for item in record if item.sha256 == listing]
    else:
        try:
            status = source.stat()
        except OSError as error:
            raise ReadError(source, f"cannot be read ({error.strerror or error})") from error
        stamp = (source.name, status.st_size, status.st_mtime_ns)
        same = [item for item in record if (item.name, item.size, item.mtime_ns) == stamp]
    return same[0] if same else None


def take_source(source: Path, transaction: Transaction, ingest: Ingest) -> InstalledArchive:
    """Check a source and collect its files in the folder of a transaction.

    Args:
        source: An archive, a file that is not extracted, or an extracted folder. It is only read.
        transaction: The transaction.
        ingest: The settings.

    Returns:
        The record of the source.

    Raises:
        ArchiveError: If it differs from the official archive, is damaged, or is hostile.
        ReadError: If it cannot be read.
        WriteError: If the disk is full.
    """
    if source.is_dir():
        return _take_folder(source, transaction, ingest)
    with _open(source) as file:
        status = os.fstat(file.fileno())
        with ingest.task(f"hash {source.name}", status.st_size) as report:
            digest = digest_file(file, source, report=report)
        official = find_official(source.name, digest, ingest.archives)
        is_verified = official is not None and check_official(official, digest, source)
        folder = transaction.fresh_folder(f"extracted-{source.name[:80]}")
        if _is_packed(source, official):
            with ingest.task(f"extract {source.name}", digest.size) as report:
                files = extract_archive(
                    file, folder, path=source, limits=ingest.limits, report=report
                ).files
            if official is not None:
                folder = _set_into(folder, official.folder, transaction)
        else:
            require_space(folder, digest.size, purpose=f"copying {source.name}")
            copy_file(source, folder / (official.name if official is not None else source.name))
            files = 1
    entries = tuple(sorted(path.name for path in folder.iterdir()))
    move_into(folder, transaction.contents, name=source)
    return InstalledArchive(
        dataset=ingest.dataset,
        name=source.name,
        sha256=digest.sha256,
        size=digest.size,
        mtime_ns=status.st_mtime_ns,
        entries=entries,
        files=files,
        is_official=is_verified,
    )


def _take_folder(source: Path, transaction: Transaction, ingest: Ingest) -> InstalledArchive:
    files = list_folder(source, limits=ingest.limits)
    if not files:
        raise UsageError(f"--source {source}: holds no file")
    total = sum(file.size for file in files)
    folder = transaction.fresh_folder(f"copied-{source.resolve().name[:80]}")
    require_space(folder, total, purpose=f"copying {source}")
    # An official folder keeps its name. From other folders only the content is copied.
    official = {archive.folder.partition("/")[0] for archive in ingest.archives if archive.folder}
    name = source.resolve().name
    top = folder / name if name in official else folder
    done = 0
    with ingest.task(f"copy {name}", total) as report:
        for file in files:
            done += copy_file(file.path, top.joinpath(*file.parts))
            report(done, max(done, total))
    entries = tuple(sorted(path.name for path in folder.iterdir()))
    move_into(folder, transaction.contents, name=source)
    return InstalledArchive(
        dataset=ingest.dataset,
        name=name,
        sha256=_digest_listing(files),
        size=total,
        mtime_ns=0,
        entries=entries,
        files=len(files),
        is_official=False,
    )


def _set_into(folder: Path, name: str, transaction: Transaction) -> Path:
    """Add the top folder that the readers expect, if the archive lacks it."""
    if not name or (folder / name).is_dir():
        return folder
    parent = transaction.fresh_folder(f"{folder.name}-set")
    with as_write_error(parent / name, option=DATA_DIR):
        folder.rename(parent / name)
    return parent


def _is_packed(source: Path, official: Archive | None) -> bool:
    if official is not None:
        return official.is_packed
    return not source.name.lower().endswith(_KEPT_SUFFIXES)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror or error})") from error
    with file:
        yield file


def _digest_listing(files: Sequence[FolderFile]) -> str:
    rows = [(file.parts, file.size, file.mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

"""The one place where archives are unpacked: .zip, .tar, .tar.gz.

Nothing is unpacked that is not a plain file or folder below the folder it belongs in. Modes, owners
and times of the archive are not taken over. Archives inside archives stay as they are, so one that
contains itself ends here.
"""

import contextlib
import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from segnetr.data.download.archive_member import Member, read_tar, read_zip
from segnetr.data.download.safe_names import (
    ExtractionBudget,
    Limits,
    NameRegistry,
    is_junk,
    show_name,
    split_name,
)
from segnetr.errors import ArchiveError, ReadError
from segnetr.storage.disk_errors import DATA_DIR, as_write_error, require_space, write_new_file

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".7z", ".tar.bz2", ".tar.xz")
"""Endings of files that are archives to people; what a file is, its first bytes say."""

Format = Literal["zip", "tar", "tar.gz"]
Report = Callable[[int, int], None]

_FOREIGN = {
    b"Rar!\x1a\x07": ("RAR", "unrar x {name}, or 7z x {name}"),
    b"7z\xbc\xaf\x27\x1c": ("7z", "7z x {name}"),
    b"BZh": ("bzip2", "tar xf {name}"),
    b"\xfd7zXZ\0": ("xz", "tar xf {name}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What came out of an archive.

    Attributes:
        files: Number of files.
        bytes: Their bytes.
        left_out: Files that operating systems leave behind (`._*`, `__MACOSX`), not unpacked.
    """

    files: int
    bytes: int
    left_out: int


def extract_archive(
    file: IO[bytes],
    folder: Path,
    *,
    path: Path,
    limits: Limits,
    report: Report | None = None,
) -> Unpacked:
    """Unpack an archive into an empty folder of ours.

    Args:
        file: The open archive; read from its start, whatever its position.
        folder: An empty folder that nobody else writes to. After an error it holds half of
            something and is to be removed.
        path: The archive's path, for messages.
        limits: How much may come out.
        report: Called now and then with the bytes of the archive that are done, and all.

    Returns:
        What came out.

    Raises:
        ArchiveError: If the archive is torn, of a format not read here, or attacks: names that
            point elsewhere or cannot stand side by side, links, devices, set-user bits, overlapping
            entries, bombs, encryption.
        ReadError: If it cannot be read.
        WriteError: If the disk is full, or the folder cannot be written.
    """
    with _as_archive_error(path):
        size = file.seek(0, 2)
        file.seek(0)
        kind = recognize(file, path)
        require_space(folder, size, purpose=f"unpacking {path.name}")
        meter = ExtractionBudget(path, limits, archive_bytes=size)
        entries: Generator[Member, None, None]
        if kind == "zip":
            entries = read_zip(file, path, limits=limits, meter=meter)
        else:
            entries = read_tar(file, path, is_compressed=kind == "tar.gz", meter=meter)
        with contextlib.closing(entries):
            found = _write_entries(
                entries,
                folder,
                path=path,
                meter=meter,
                tell=file.tell,
                report=(report or _ignore),
                size=size,
            )
    if not found.files:
        raise ArchiveError(path, "holds no file")
    return found


def recognize(file: IO[bytes], path: Path) -> Format:
    """Tell the format by the first bytes, and go back to the start.

    Raises:
        ArchiveError: If it is none that is read here; the message says how to unpack it.
    """
    start = file.read(512)
    file.seek(0)
    if start[:4] in {b"PK\3\4", b"PK\5\6"}:
        return "zip"
    if start[:2] == b"\x1f\x8b":
        return "tar.gz"
    if start[257:262] == b"ustar":
        return "tar"
    for magic, (name, command) in _FOREIGN.items():
        if start.startswith(magic):
            raise ArchiveError(
                path,
                f"is a {name} archive, which is not read here; unpack it first "
                f"({command.format(name=path.name)}) and name the folder as --source",
            )
    what = "is empty" if not start else "is no .zip, .tar or .tar.gz archive"
    raise ArchiveError(path, f"{what}; was the download complete?")


def _write_entries(
    entries: Iterable[Member],
    folder: Path,
    *,
    path: Path,
    meter: ExtractionBudget,
    tell: Callable[[], int],
    report: Report,
    size: int,
) -> Unpacked:
    ledger = NameRegistry()
    files = written = left_out = 0
    for entry in entries:
        meter.count_entry()
        try:
            parts = split_name(entry.name)
            ledger.add(parts, is_folder=entry.is_folder)
        except ValueError as error:
            raise ArchiveError(
                path, f"{show_name(entry.name)} in it {error}; nothing was unpacked"
            ) from error
        if is_junk(parts):
            left_out += not entry.is_folder
        elif entry.is_folder:
            _make_folder(folder.joinpath(*parts))
        elif not parts:
            raise ArchiveError(path, f"{show_name(entry.name)} in it has no name")
        else:
            _make_folder(folder.joinpath(*parts[:-1]))
            written += write_new_file(folder.joinpath(*parts), entry.read())
            files += 1
        report(min(tell(), size), size)
    return Unpacked(files=files, bytes=written, left_out=left_out)


def _make_folder(folder: Path) -> None:
    with as_write_error(folder, option=DATA_DIR):
        folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _as_archive_error(path: Path) -> Iterator[None]:
    """Turn what the libraries say about a torn archive into one line."""
    try:
        yield
    except gzip.BadGzipFile as error:  # an OSError, but not the disk's issue
        raise _torn(path, error) from error
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror or error})") from error
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        struct.error,
        EOFError,
        ValueError,
        IndexError,
        OverflowError,
        NotImplementedError,
        RecursionError,
    ) as error:
        raise _torn(path, error) from error


def _torn(path: Path, error: Exception) -> ArchiveError:
    detail = " ".join(str(error).split())[:120] or type(error).__name__
    return ArchiveError(path, f"torn or changed ({detail}); fetch it again")


def _ignore(done: int, total: int) -> None:
    """Take a report of progress nobody waits for."""

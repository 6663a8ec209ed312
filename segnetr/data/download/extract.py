"""Extract .zip, .tar and .tar.gz archives from untrusted sources.

`zipfile` and `tarfile` parse the archives, and `tarfile.data_filter` rejects tar members that the
standard library considers unsafe. Our own checks cover what both accept: links inside the folder,
devices among the zip file types, set-user bits, overlapping zip members (a zip bomb), headers that
claim gigabytes, a broken header in the middle (`tarfile` stops there silently), and a missing end.

Only plain files and folders below the target folder are written. Modes, owners and times are not
restored. Archives inside archives are not extracted.
"""

import contextlib
import gzip
import io
import itertools
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal, cast

from segnetr.data.download.safe_names import (
    ArchiveLimits,
    ExtractionBudget,
    NameRegistry,
    is_junk,
    show_name,
    split_member_name,
)
from segnetr.errors import ArchiveError, ReadError
from segnetr.storage.disk_errors import DATA_DIR, as_write_error, require_space, write_new_file

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".7z", ".tar.bz2", ".tar.xz")
"""Suffixes of archives. The format is recognized by the first bytes of the file."""

CHUNK = 1 << 20
"""Maximum number of bytes of a file that are held at once."""

Format = Literal["zip", "tar", "tar.gz"]
_Report = Callable[[int, int], None]

_UNSUPPORTED = {
    b"Rar!\x1a\x07": ("RAR", "unrar x {name}, or 7z x {name}"),
    b"7z\xbc\xaf\x27\x1c": ("7z", "7z x {name}"),
    b"BZh": ("bzip2", "tar xf {name}"),
    b"\xfd7zXZ\0": ("xz", "tar xf {name}"),
}
_SPECIAL_TAR_TYPES = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}
_ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ZIP_ENCRYPTED = 0x1 | 0x40 | 0x2000
_ZIP_LOCAL_HEADER = struct.Struct("<4s22xHH")
# An entry of the table of contents has 46 bytes and a name. This allows for a very long name.
_ZIP_ENTRY_BYTES = 512
_DAMAGE_ERRORS = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, ValueError,
    IndexError, OverflowError, NotImplementedError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveMember:
    """A file or folder of an archive. Its name is not checked yet.

    Attributes:
        name: The name as the archive spells it.
        is_folder: Whether it is a folder.
        read: Yields the content in chunks. Must be called before the next member is requested.
    """

    name: str
    is_folder: bool
    read: Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """The result of an extraction.

    Attributes:
        files: Number of files.
        bytes: Their total size.
        left_out: Number of files that operating systems create (`._*`, `__MACOSX`). They are not
            extracted.
    """

    files: int
    bytes: int
    left_out: int


def extract_archive(
    file: IO[bytes],
    folder: Path,
    *,
    path: Path,
    limits: ArchiveLimits,
    report: _Report | None = None,
) -> Extracted:
    """Extract an archive into an empty folder.

    Args:
        file: The open archive, which is read from its start.
        folder: An empty folder that nobody else writes to. After an error its content is
            incomplete, and it must be removed.
        path: The path of the archive, for messages.
        limits: Limits on the extracted files.
        report: Called with the number of processed bytes of the archive, and their total.

    Raises:
        ArchiveError: If the archive is damaged, not supported or hostile: names outside the folder
            or in conflict with each other, links, devices, set-user bits, overlapping members,
            bombs, encryption.
        ReadError: If it cannot be read.
        WriteError: If the disk is full, or the folder cannot be written.
    """
    with _as_archive_error(path):
        size = file.seek(0, 2)
        file.seek(0)
        kind = recognize_archive(file, path)
        require_space(folder, size, purpose=f"extracting {path.name}")
        budget = ExtractionBudget(path, limits, archive_bytes=size)
        if kind == "zip":
            members = _read_zip(file, path, max_files=limits.files, budget=budget)
        else:
            stream = gzip.GzipFile(fileobj=file, mode="rb") if kind == "tar.gz" else file
            members = _read_tar(_ForwardReader(stream, path, budget), path, folder)  # type: ignore[arg-type]
        done = (report or _ignore, lambda: min(file.tell(), size), size)
        with contextlib.closing(members):
            found = _write_members(members, folder, path=path, budget=budget, progress=done)
    if not found.files:
        raise ArchiveError(path, "holds no file")
    return found


def recognize_archive(file: IO[bytes], path: Path) -> Format:
    """Return the format of an archive by its first bytes, and rewind the file.

    Raises:
        ArchiveError: If the format is not supported. The message says how to extract it.
    """
    start = file.read(512)
    file.seek(0)
    if start[:4] in {b"PK\3\4", b"PK\5\6"}:
        return "zip"
    if start[:2] == b"\x1f\x8b":
        return "tar.gz"
    if start[257:262] == b"ustar":
        return "tar"
    for magic, (name, command) in _UNSUPPORTED.items():
        if start.startswith(magic):
            raise ArchiveError(
                path,
                f"is a {name} archive, which is not supported; extract it first "
                f"({command.format(name=path.name)}) and pass the folder as --source",
            )
    reason = "is empty" if not start else "is no .zip, .tar or .tar.gz archive"
    raise ArchiveError(path, f"{reason}; was the download complete?")


def _write_members(
    members: Iterable[ArchiveMember],
    folder: Path,
    *,
    path: Path,
    budget: ExtractionBudget,
    progress: tuple[_Report, Callable[[], int], int],
) -> Extracted:
    registry = NameRegistry()
    report, tell, size = progress
    files = written = left_out = 0
    for member in members:
        budget.count_member()
        try:
            parts = split_member_name(member.name)
            registry.add(parts, is_folder=member.is_folder)
        except ValueError as error:
            raise _rejected(path, member.name, str(error)) from error
        if is_junk(parts):
            left_out += not member.is_folder
        elif member.is_folder:
            _make_folder(folder.joinpath(*parts))
        elif not parts:
            raise _rejected(path, member.name, "has no name")
        else:
            _make_folder(folder.joinpath(*parts[:-1]))
            written += write_new_file(folder.joinpath(*parts), member.read())
            files += 1
        report(tell(), size)
    return Extracted(files=files, bytes=written, left_out=left_out)


def _make_folder(folder: Path) -> None:
    with as_write_error(folder, option=DATA_DIR):
        folder.mkdir(parents=True, exist_ok=True)


def _rejected(path: Path, name: str, reason: str) -> ArchiveError:
    return ArchiveError(path, f"{show_name(name)} in it {reason}; nothing was extracted")


@contextlib.contextmanager
def _as_archive_error(path: Path) -> Iterator[None]:
    """Convert errors of the libraries about a damaged archive into one line."""
    try:
        yield
    except OSError as error:
        if not isinstance(error, gzip.BadGzipFile):
            raise ReadError(path, f"cannot be read ({error.strerror or error})") from error
        raise _damaged(path, error) from error
    except _DAMAGE_ERRORS as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ArchiveError:
    detail = " ".join(str(error).split())[:120] or type(error).__name__
    return ArchiveError(path, f"damaged or changed ({detail}); fetch it again")


def _ignore(done: int, total: int) -> None:
    """Ignore progress."""


def _read_tar(
    reader: "_ForwardReader", path: Path, folder: Path
) -> Generator[ArchiveMember, None, None]:
    """Yield the members of a tar archive in order, and check the end of the archive."""
    with tarfile.TarFile(
        fileobj=reader, mode="r", encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for info in archive:
            if not info.isdir():
                _check_tar_file(info, path)
            read = partial(_read_tar_file, archive, info, folder)
            yield ArchiveMember(name=info.name, is_folder=info.isdir(), read=read)
    if reader.last_block != bytes(tarfile.BLOCKSIZE):
        raise ArchiveError(path, "damaged: a header in it is broken, or its end is missing")
    while reader.read(CHUNK):  # the CRC is at the end of the compressed stream
        pass


def _check_tar_file(info: tarfile.TarInfo, path: Path) -> None:
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
        kind = _SPECIAL_TAR_TYPES.get(info.type, "neither file nor folder")
        raise _rejected(path, info.name, f"is {kind}")
    if info.mode & (stat.S_ISUID | stat.S_ISGID):
        raise _rejected(path, info.name, "would run as another user")
    if info.size < 0:
        raise tarfile.ReadError(f"{show_name(info.name)} has a negative size")


def _read_tar_file(
    archive: tarfile.TarFile, info: tarfile.TarInfo, folder: Path
) -> Iterator[bytes]:
    tarfile.data_filter(info, str(folder))
    stream, left = archive.extractfile(info), info.size
    while stream is not None and left:
        chunk = stream.read(min(CHUNK, left))
        if not chunk:
            break
        left -= len(chunk)
        yield chunk
    if left:
        raise tarfile.ReadError(f"{show_name(info.name)} ends early")


class _ForwardReader(io.BufferedIOBase):
    """A stream for `tarfile` that is read in small chunks and never backwards."""

    def __init__(self, stream: IO[bytes], path: Path, budget: ExtractionBudget) -> None:
        self._stream = stream
        self._path = path
        self._budget = budget
        self._position = 0
        self.last_block = b""

    def read(self, size: int | None = -1) -> bytes:
        # tarfile reads the records of long names and attributes in one call.
        if size is None or not 0 <= size <= CHUNK:
            raise ArchiveError(self._path, "damaged: a header claims to be longer than 1 MiB")
        data = self._stream.read(size)
        self._position += len(data)
        self._budget.count_bytes(len(data))
        if size == tarfile.BLOCKSIZE:
            self.last_block = data
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._position:
            raise ArchiveError(self._path, "damaged: a header in it points backwards")
        while self._position < offset and self.read(min(CHUNK, offset - self._position)):
            pass
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _read_zip(
    file: IO[bytes], path: Path, *, max_files: int, budget: ExtractionBudget
) -> Generator[ArchiveMember, None, None]:
    """Yield the members of a zip archive in the order of its table of contents."""
    bounded = _BoundedReader(file, path, most=max(2 * CHUNK, max_files * _ZIP_ENTRY_BYTES))
    with zipfile.ZipFile(cast(IO[bytes], bounded)) as archive:
        infos = archive.infolist()
        for info in infos:
            _check_zip_kind(info, path)
        _check_overlaps(infos, file, path, table=archive.start_dir)
        for info in infos:
            name = info.orig_filename
            read = partial(_read_zip_file, archive, info, budget)
            yield ArchiveMember(name=name, is_folder=name.endswith("/"), read=read)


class _BoundedReader:
    """A file for `zipfile`, which reads the table of contents in one call and keeps it in memory.

    Args:
        file: The archive.
        path: Its path, for messages.
        most: Maximum number of bytes in one call.
    """

    def __init__(self, file: IO[bytes], path: Path, *, most: int) -> None:
        self._file = file
        self._path = path
        self._most = most
        self._size = file.seek(0, io.SEEK_END)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        wanted = left if size < 0 else min(size, left)
        if wanted > self._most:
            raise ArchiveError(
                self._path,
                f"has a table of contents of {wanted} bytes; if that is right, raise --max-files",
            )
        return self._file.read(wanted)


def _check_zip_kind(info: zipfile.ZipInfo, path: Path) -> None:
    name = info.orig_filename
    if info.flag_bits & _ZIP_ENCRYPTED:
        raise _rejected(
            path, name, "is encrypted; extract it with its password and pass the folder as --source"
        )
    if info.compress_type not in _ZIP_METHODS:
        raise _rejected(
            path,
            name,
            f"uses compression method {info.compress_type}, which is not supported; extract it with"
            " 7z and pass the folder as --source",
        )
    mode = info.external_attr >> 16
    kind, is_folder = stat.S_IFMT(mode), name.endswith("/")
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        what = "a link" if kind == stat.S_IFLNK else "a device or a pipe"
        raise _rejected(path, name, f"is {what}")
    if kind and is_folder != (kind == stat.S_IFDIR):
        raise _rejected(path, name, "is a file and a folder at once")
    if is_folder and info.file_size:
        raise _rejected(path, name, "is a folder with content")
    if not is_folder and mode & (stat.S_ISUID | stat.S_ISGID):
        raise _rejected(path, name, "would run as another user")


def _check_overlaps(
    infos: list[zipfile.ZipInfo], file: IO[bytes], path: Path, *, table: int
) -> None:
    """Reject members that share bytes with each other or with the table of contents."""
    spans = [(table, table, "")]
    for info in infos:
        file.seek(info.header_offset)
        header = file.read(_ZIP_LOCAL_HEADER.size)
        if len(header) < _ZIP_LOCAL_HEADER.size:
            raise zipfile.BadZipFile("a member is beyond the end")
        magic, name_bytes, extra_bytes = _ZIP_LOCAL_HEADER.unpack(header)
        if magic != b"PK\3\4":
            raise zipfile.BadZipFile("a member has no header")
        data = info.header_offset + len(header) + name_bytes + extra_bytes
        spans.append((info.header_offset, data + info.compress_size, info.orig_filename))
    for (_, end, name), (start, _, other) in itertools.pairwise(sorted(spans)):
        if end > start:
            shown = show_name(other) if other else "the table of contents"
            raise _rejected(path, name, f"overlaps {shown}, as in a zip bomb")


def _read_zip_file(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: ExtractionBudget
) -> Iterator[bytes]:
    done = 0
    with archive.open(info) as stream:
        while chunk := stream.read(CHUNK):
            budget.count_bytes(len(chunk))
            done += len(chunk)
            yield chunk
    if done != info.file_size:
        raise zipfile.BadZipFile(f"{show_name(info.orig_filename)} ends early")

"""List the members of .zip, .tar and .tar.gz archives, each checked before its bytes are read.

The standard `tarfile` and `zipfile` modules parse the archives. `tarfile.data_filter` rejects tar
members that the standard library considers unsafe. Our own checks cover what both modules accept:
links inside the folder, set-user bits, headers that claim gigabytes, a broken header in the middle
(`tarfile` stops there silently), a missing end, overlapping zip members (a zip bomb), devices among
the zip file types, and a table of contents of any size.
"""

import gzip
import io
import itertools
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from segnetr.data.download.safe_names import ExtractionBudget, Limits, show_name
from segnetr.errors import ArchiveError

CHUNK = 1 << 20
"""Most bytes that are held of a file at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file or folder, not looked at yet.

    Attributes:
        name: As the archive spells it; not to be trusted.
        is_folder: A folder, without bytes of its own.
        size: The bytes it claims to have.
        read: Gives its bytes in pieces; called before the next entry is asked for, or never.
    """

    name: str
    is_folder: bool
    size: int
    read: Callable[[], Iterator[bytes]]


_FILES = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE})
_KINDS = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


def read_tar(
    file: IO[bytes], path: Path, *, is_compressed: bool, meter: ExtractionBudget
) -> Generator[Member, None, None]:
    """Give the entries of a .tar or .tar.gz file in their order.

    Args:
        file: The open archive, at its start.
        path: Its path, for messages.
        is_compressed: Whether it is a .tar.gz file.
        meter: Told of every byte behind the compression, headers and all.

    Raises:
        ArchiveError: If an entry is neither file nor folder, a header is too large, or the end is
            missing.
        tarfile.TarError: If the archive is torn.
    """
    stream: IO[bytes] = gzip.GzipFile(fileobj=file, mode="rb") if is_compressed else file  # type: ignore[assignment]
    reader = _ForwardReader(stream, path, meter)
    with tarfile.TarFile(
        fileobj=reader, mode="r", encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for entry in archive:
            _check_tar_kind(entry, path)
            yield Member(
                name=entry.name,
                is_folder=entry.isdir(),
                size=entry.size,
                read=partial(_read_tar_member, archive, entry),
            )
    if reader.last_block != bytes(tarfile.BLOCKSIZE):
        raise ArchiveError(path, "torn: a header in it is broken, or its end is missing")
    # The end of the compressed stream has its CRC.
    while reader.read(CHUNK):
        pass


def _check_tar_kind(entry: tarfile.TarInfo, path: Path) -> None:
    name = show_name(entry.name)
    if entry.isdir():
        return
    if entry.type not in _FILES or entry.issparse():
        what = _KINDS.get(entry.type, "neither file nor folder")
        raise ArchiveError(path, f"{name} in it is {what}; nothing was unpacked")
    if entry.mode & (stat.S_ISUID | stat.S_ISGID):
        raise ArchiveError(path, f"{name} in it would run as another user; nothing was unpacked")
    if entry.size < 0:
        raise tarfile.ReadError(f"{name} has a negative size")


def _read_tar_member(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
    stream = archive.extractfile(entry)
    if stream is None:
        raise tarfile.ReadError(f"{show_name(entry.name)} has no bytes")
    with stream:
        left = entry.size
        while left:
            chunk = stream.read(min(CHUNK, left))
            if not chunk:
                raise tarfile.ReadError(f"{show_name(entry.name)} ends early")
            left -= len(chunk)
            yield chunk


class _ForwardReader(io.BufferedIOBase):
    """A stream that is read in small pieces and never backwards."""

    def __init__(self, stream: IO[bytes], path: Path, meter: ExtractionBudget) -> None:
        self._stream = stream
        self._path = path
        self._meter = meter
        self._position = 0
        self.last_block = b""

    def read(self, size: int | None = -1) -> bytes:
        # tarfile takes the records of long names and attributes in one piece.
        if size is None or not 0 <= size <= CHUNK:
            raise ArchiveError(self._path, "torn: a header in it claims to be longer than 1 MiB")
        data = self._stream.read(size)
        self._position += len(data)
        self._meter.count_bytes(len(data))
        if size == tarfile.BLOCKSIZE:
            self.last_block = data
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._position:
            raise ArchiveError(self._path, "torn: an entry in it points backwards")
        while self._position < offset and self.read(min(CHUNK, offset - self._position)):
            pass
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_LOCAL = struct.Struct("<4s22xHH")
# A line of the table of contents has 46 bytes and a name; this is one with a very long name.
_TABLE_BYTES = 512


def read_zip(
    file: IO[bytes], path: Path, *, limits: Limits, meter: ExtractionBudget
) -> Generator[Member, None, None]:
    """Give the entries of a .zip file in the order of its table of contents.

    Args:
        file: The open archive, which can be sought.
        path: Its path, for messages.
        limits: Bounds, for the table of contents.
        meter: Told of every byte that is unpacked.

    Raises:
        ArchiveError: If entries are encrypted, overlap, or are neither file nor folder.
        zipfile.BadZipFile: If the archive is torn.
    """
    bounded = _BoundedFile(file, path, most=max(2 * CHUNK, limits.files * _TABLE_BYTES))
    with zipfile.ZipFile(bounded) as archive:
        entries = archive.infolist()
        for entry in entries:
            _check_zip_kind(entry, path)
        _check_overlaps(entries, file, path, table=archive.start_dir)
        for entry in entries:
            yield Member(
                name=entry.orig_filename,
                is_folder=entry.orig_filename.endswith("/"),
                size=entry.file_size,
                read=partial(_read_zip_member, archive, entry, meter),
            )


def _check_zip_kind(entry: zipfile.ZipInfo, path: Path) -> None:
    name = show_name(entry.orig_filename)
    if entry.flag_bits & _ENCRYPTED:
        raise ArchiveError(
            path,
            f"{name} in it is encrypted; unpack it with its password and name the folder as "
            "--source",
        )
    if entry.compress_type not in _METHODS:
        raise ArchiveError(
            path,
            f"{name} in it is packed by method {entry.compress_type}, which is not read here; "
            "unpack it with 7z and name the folder as --source",
        )
    mode = entry.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        what = "a link" if kind == stat.S_IFLNK else "a device or a pipe"
        raise ArchiveError(path, f"{name} in it is {what}; nothing was unpacked")
    is_folder = entry.orig_filename.endswith("/")
    if is_folder != (kind == stat.S_IFDIR) and kind:
        raise ArchiveError(path, f"{name} in it is a file and a folder at once")
    if is_folder and entry.file_size:
        raise ArchiveError(path, f"the folder {name} in it has bytes of its own")
    if not is_folder and mode & (stat.S_ISUID | stat.S_ISGID):
        raise ArchiveError(path, f"{name} in it would run as another user; nothing was unpacked")


def _check_overlaps(
    entries: list[zipfile.ZipInfo], file: IO[bytes], path: Path, *, table: int
) -> None:
    """Refuse entries that share bytes with each other or with the table of contents."""
    spans = [(table, table, "")]
    for entry in entries:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL.size)
        if len(header) < _LOCAL.size:
            raise zipfile.BadZipFile("an entry lies behind the end")
        magic, name_bytes, extra_bytes = _LOCAL.unpack(header)
        if magic != b"PK\3\4":
            raise zipfile.BadZipFile("an entry has no header")
        data = entry.header_offset + _LOCAL.size + name_bytes + extra_bytes
        spans.append((entry.header_offset, data + entry.compress_size, entry.orig_filename))
    for (_, end, name), (start, _, other) in itertools.pairwise(sorted(spans)):
        if end > start:
            beside = show_name(other) if other else "the table of contents"
            raise ArchiveError(
                path, f"{show_name(name)} in it overlaps {beside}, as an archive bomb does"
            )


def _read_zip_member(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo, meter: ExtractionBudget
) -> Iterator[bytes]:
    done = 0
    with archive.open(entry) as stream:
        while chunk := stream.read(CHUNK):
            meter.count_bytes(len(chunk))
            done += len(chunk)
            yield chunk
    if done != entry.file_size:
        raise zipfile.BadZipFile(f"{show_name(entry.orig_filename)} ends early")


class _BoundedFile(io.BufferedIOBase):
    """A file of which nobody takes more at once than is reasonable.

    `zipfile` reads the table of contents in one piece and keeps an object for each line of it.
    """

    def __init__(self, file: IO[bytes], path: Path, *, most: int) -> None:
        self._file = file
        self._path = path
        self._most = most
        self._size = file.seek(0, io.SEEK_END)

    def read(self, size: int | None = -1) -> bytes:
        left = self._size - self._file.tell()
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > self._most:
            raise ArchiveError(
                self._path,
                f"has a table of contents of {wanted} bytes; if that is right, raise --max-files",
            )
        return self._file.read(wanted) if wanted > 0 else b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

"""The entries of a .zip file. The library under it checks the CRC; everything else is checked here.

What `zipfile` takes without a word: entries that share bytes (the bomb of D. Fifield), links and
devices among the file types, names that differ after a NUL, a table of contents of any size.
"""

import io
import itertools
import stat
import struct
import zipfile
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from segnetr.data.download.archive_member import CHUNK, Entry
from segnetr.data.download.limits import Limits, Meter
from segnetr.data.download.safe_names import show_name
from segnetr.errors import ArchiveError

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_LOCAL = struct.Struct("<4s22xHH")
# A line of the table of contents has 46 bytes and a name; this is one with a very long name.
_TABLE_BYTES = 512


def read_zip(
    file: IO[bytes], path: Path, *, limits: Limits, meter: Meter
) -> Generator[Entry, None, None]:
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
            _check_kind(entry, path)
        _check_overlaps(entries, file, path, table=archive.start_dir)
        for entry in entries:
            yield Entry(
                name=entry.orig_filename,
                is_folder=entry.orig_filename.endswith("/"),
                size=entry.file_size,
                read=partial(_read_entry, archive, entry, meter),
            )


def _check_kind(entry: zipfile.ZipInfo, path: Path) -> None:
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


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, meter: Meter) -> Iterator[bytes]:
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

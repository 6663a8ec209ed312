"""The entries of a .tar or .tar.gz file, read once from its start to its end.

What `tarfile` takes without a word: links out of the folder, devices, a header that claims
gigabytes and is read into memory, a broken header in the middle, at which it simply stops, and a
missing end.
"""

import gzip
import io
import stat
import tarfile
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from segnetr.data.download.archive_member import CHUNK, Entry
from segnetr.data.download.limits import Meter
from segnetr.data.download.safe_names import show_name
from segnetr.errors import ArchiveError

_FILES = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE})
_KINDS = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


def read_tar(
    file: IO[bytes], path: Path, *, is_compressed: bool, meter: Meter
) -> Generator[Entry, None, None]:
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
            _check_kind(entry, path)
            yield Entry(
                name=entry.name,
                is_folder=entry.isdir(),
                size=entry.size,
                read=partial(_read_entry, archive, entry),
            )
    if reader.last_block != bytes(tarfile.BLOCKSIZE):
        raise ArchiveError(path, "torn: a header in it is broken, or its end is missing")
    # The end of the compressed stream has its CRC.
    while reader.read(CHUNK):
        pass


def _check_kind(entry: tarfile.TarInfo, path: Path) -> None:
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


def _read_entry(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
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

    def __init__(self, stream: IO[bytes], path: Path, meter: Meter) -> None:
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

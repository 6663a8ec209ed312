"""Read the bytes of a volume in chunks, compressed or not, and verify checksums."""

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from segnetr.errors import ReadError

CHUNK_BYTES = 2**20
GZIP_SIGNATURE = b"\x1f\x8b"
# Deflate compresses by a factor of at most 1032 (zlib's technical notes). A header that claims more
# is rejected before anything is decompressed.
LARGEST_RATIO = 1032

Packing = Literal["raw", "gzip", "zlib"]
_WINDOW_BITS = {"gzip": 31, "zlib": 15}


def read_chunks(path: Path, stream: BinaryIO, packing: Packing) -> Iterator[bytes]:
    """Yield the decompressed rest of a stream in chunks of about one megabyte.

    Args:
        path: The file, for messages.
        stream: A stream open for reading.
        packing: The compression. All members of a gzip stream are read.

    Raises:
        ReadError: If compressed data are damaged, or end before their checksum.
    """
    if packing == "raw":
        return iter(lambda: stream.read(CHUNK_BYTES), b"")
    return _unpack(path, stream, packing)


def fill(chunks: Iterator[bytes], content: bytearray, size: int) -> None:
    """Append chunks to `content` until it has `size` bytes, or no chunk is left."""
    while len(content) < size:
        chunk = next(chunks, None)
        if chunk is None:
            return
        content += chunk


def read_voxel_bytes(path: Path, stream: BinaryIO, needed: int, *, packing: Packing) -> bytearray:
    """Read exactly the bytes of a volume, and see that nothing is behind them.

    Args:
        path: The file, for messages.
        stream: Open, and standing before the first byte of the voxels.
        needed: Bytes that its header says there are.
        packing: How they are packed.

    Raises:
        ReadError: If there are fewer or more bytes, or packed data are damaged. A claim that the
            rest of the stream cannot hold is refused before memory is taken.
    """
    start = stream.tell()
    present = stream.seek(0, io.SEEK_END) - start
    stream.seek(start)
    possible = present if packing == "raw" else present * LARGEST_RATIO
    if needed > possible:
        raise ReadError(
            path, f"cut off: {needed} bytes of voxels belong to it, {possible} can be there"
        )
    content = bytearray()
    fill(read_chunks(path, stream, packing), content, needed + 1)
    if len(content) < needed:
        raise ReadError(path, f"cut off: {len(content)} of {needed} bytes of voxels are there")
    if len(content) > needed:
        raise ReadError(path, f"longer than its header says: {needed} bytes of voxels belong to it")
    return content


def _unpack(path: Path, stream: BinaryIO, packing: Packing) -> Iterator[bytes]:
    """Decompress all members in small chunks, and verify their checksums."""
    window = _WINDOW_BITS[packing]
    unpacker = zlib.decompressobj(wbits=window)
    pending = stream.read(CHUNK_BYTES)
    try:
        while pending:
            yield unpacker.decompress(pending, CHUNK_BYTES)
            if unpacker.eof:
                pending = (unpacker.unused_data or stream.read(CHUNK_BYTES)).lstrip(b"\0")
                while not pending and (more := stream.read(CHUNK_BYTES)):
                    pending = more.lstrip(b"\0")
                if pending:
                    unpacker = zlib.decompressobj(wbits=window)
            else:
                pending = unpacker.unconsumed_tail or stream.read(CHUNK_BYTES)
    except zlib.error as error:
        raise ReadError(path, f"damaged {packing} data: {error}") from error
    if not unpacker.eof:
        raise ReadError(path, f"cut off: the {packing} data end before their checksum")

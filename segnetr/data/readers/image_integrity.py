"""Check the structure of PNG, JPEG, BMP and TIFF files before decoding.

Decoders are lenient: they may silently decode a JPEG that lost its last rows, and only warn about a
TIFF directory that points beyond the end of the file. This module parses every format to its end.
"""

import mmap
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

ImageFormat = Literal["PNG", "JPEG", "BMP", "TIFF"]
Bytes: TypeAlias = bytes | mmap.mmap

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First column and row, and their steps, of the seven passes of Adam7 (PNG, section 8.2).
_PNG_PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
    (0, 1, 1, 2),
)  # fmt: skip
_CHUNK_BYTES = 2**20
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8,
                    13: 4, 16: 8, 17: 8, 18: 8}  # fmt: skip
_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}
_REDUCED_OR_MASK = 0b101
_MAX_PAGES = 10_000


class BrokenImageError(ValueError):
    """An image file is damaged. The message says where."""


def find_format(head: bytes) -> ImageFormat | None:
    """Return the format of a file by its first bytes, or None."""
    if head.startswith(_PNG_SIGNATURE):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"BM"):
        return "BMP"
    if head.startswith(_TIFF_SIGNATURES):
        return "TIFF"
    return None


def check_structure(data: bytes, image_format: ImageFormat) -> None:
    """Check an image file to its end.

    Args:
        data: The whole file.
        image_format: The result of `find_format`.

    Raises:
        BrokenImageError: If data are missing, damaged or outside the file.
    """
    checks: Mapping[ImageFormat, Callable[[bytes], None]] = {
        "PNG": _check_png,
        "JPEG": _check_jpeg,
        "BMP": _check_bmp,
        "TIFF": _check_tiff,
    }
    try:
        checks[image_format](data)
    except (struct.error, IndexError) as error:
        raise BrokenImageError("cut off inside its header") from error


def _check_png(data: bytes) -> None:
    position = len(_PNG_SIGNATURE)
    pixels: list[memoryview] = []
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise BrokenImageError(f"cut off at byte {len(data)} inside a {_ascii(kind)} chunk")
        body = memoryview(data)[position + 4 : end - 4]
        if zlib.crc32(body) != struct.unpack_from(">I", data, end - 4)[0]:
            raise BrokenImageError(f"the checksum of a {_ascii(kind)} chunk is wrong")
        if kind == b"IEND":
            return _check_png_rows(data, pixels)
        if kind == b"IDAT":
            pixels.append(body[4:])
        position = end
    raise BrokenImageError("cut off: its end (IEND) is missing")


def _check_png_rows(data: bytes, pixels: list[memoryview]) -> None:
    """Decompress the pixels in chunks and count them: Pillow fills missing rows with black."""
    needed = _count_png_bytes(data)
    unpacker, found = zlib.decompressobj(), 0
    try:
        for body in pixels:
            pending: bytes | memoryview = body
            while pending and found < needed:
                found += len(unpacker.decompress(pending, _CHUNK_BYTES))
                pending = unpacker.unconsumed_tail
        found += len(unpacker.flush()) if found < needed else 0
    except zlib.error as error:
        raise BrokenImageError(f"its pixels cannot be unpacked: {error}") from error
    if found < needed:
        raise BrokenImageError(f"cut off: {found} of {needed} bytes of pixels are there")


def _count_png_bytes(data: bytes) -> int:
    """Return the number of decompressed bytes of all rows, as the header defines it."""
    width, height, depth, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    bits = depth * _PNG_SAMPLES.get(color, 1)
    needed = 0
    for x, y, x_step, y_step in _PNG_PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -((x - width) // x_step), -((y - height) // y_step)
        needed += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    return needed


def _ascii(kind: bytes) -> str:
    return kind.decode("ascii", "backslashreplace")


def _check_jpeg(data: bytes) -> None:
    # Segments are skipped by their length: the end marker of an embedded thumbnail is not the end.
    position, scans = 2, 0
    while True:
        marker, position = _next_marker(data, position)
        if marker == 0xD9:
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue
        (length,) = struct.unpack_from(">H", data, position)
        position += max(length, 2)
        scans += marker == 0xDA
    if scans == 0:
        raise BrokenImageError("it holds no image data")


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """Return the next JPEG marker that is not a stuffed byte, and the position after it."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            raise BrokenImageError("cut off: its end marker (EOI) is missing")
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker == 0x00:
            position += 2
        else:
            return marker, position + 2


def _check_bmp(data: bytes) -> None:
    offset, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        compression, size = 0, 0
    else:
        width, height, _, depth, compression, size = struct.unpack_from("<iiHHII", data, 18)
    if compression in (1, 2):
        if data[-2:] != b"\0\1" or offset + size > len(data):
            raise BrokenImageError("cut off: the end mark of its run lengths is missing")
        return
    needed = offset + (width * depth + 31) // 32 * 4 * abs(height)
    if needed > len(data):
        raise BrokenImageError(f"cut off: {len(data)} of {needed} bytes are there")


@dataclass(frozen=True, slots=True)
class _TiffLayout:
    """Byte order and field widths of a TIFF file, classic or big."""

    order: str
    count: str
    offset: str

    @property
    def offset_bytes(self) -> int:
        return struct.calcsize(self.offset)


def walk_pages(data: Bytes) -> Iterator[tuple[int, Mapping[int, tuple[int, ...]]]]:
    """Yield the full pages of a TIFF file, each checked to its end.

    Args:
        data: The whole file.

    Yields:
        The index of the page's directory and its fields by tag. Previews and masks, which have
        directories too, are skipped.

    Raises:
        BrokenImageError: If a directory or the data of a page are missing or damaged.
    """
    try:
        for number, tags in enumerate(_walk_tiff(data)):
            if not tags.get(254, (0,))[0] & _REDUCED_OR_MASK:
                _check_tiff_data(data, tags)
                yield number, tags
    except (struct.error, IndexError) as error:
        raise BrokenImageError("cut off inside its header") from error


def _check_tiff(data: bytes) -> None:
    pages = sum(1 for _ in walk_pages(data))
    if pages != 1:
        raise BrokenImageError(
            f"it holds {pages} pages where one is read; save each page as a separate file"
        )


def _check_tiff_data(data: Bytes, tags: Mapping[int, tuple[int, ...]]) -> None:
    offsets = tags.get(273) or tags.get(324) or ()
    sizes = tags.get(279) or tags.get(325) or ()
    if not offsets or len(offsets) != len(sizes):
        raise BrokenImageError("its table of image data is missing or damaged")
    needed = max(offset + size for offset, size in zip(offsets, sizes, strict=True))
    if needed > len(data):
        raise BrokenImageError(f"cut off: {len(data)} of {needed} bytes are there")


def _walk_tiff(data: Bytes) -> Iterator[dict[int, tuple[int, ...]]]:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    layout = _TiffLayout(order, order + ("Q" if big else "H"), order + ("Q" if big else "I"))
    (position,) = struct.unpack_from(layout.offset, data, 8 if big else 4)
    seen: set[int] = set()
    while position:
        if position in seen or len(seen) >= _MAX_PAGES:
            raise BrokenImageError("its directories form a cycle")
        seen.add(position)
        (entries,) = struct.unpack_from(layout.count, data, position)
        position += struct.calcsize(layout.count)
        entry_bytes = 4 + 2 * layout.offset_bytes
        if position + entries * entry_bytes > len(data):
            raise BrokenImageError("cut off inside its directory")
        yield dict(
            _read_tiff_entry(data, position + i * entry_bytes, layout) for i in range(entries)
        )
        (position,) = struct.unpack_from(layout.offset, data, position + entries * entry_bytes)


def _read_tiff_entry(
    data: Bytes, position: int, layout: _TiffLayout
) -> tuple[int, tuple[int, ...]]:
    """Return a tag and its integers, or no integers for other types."""
    tag, kind = struct.unpack_from(layout.order + "HH", data, position)
    (count,) = struct.unpack_from(layout.offset, data, position + 4)
    start = position + 4 + layout.offset_bytes
    total = count * _TIFF_ITEM_BYTES.get(kind, 1)
    if total > layout.offset_bytes:
        (start,) = struct.unpack_from(layout.offset, data, start)
    if start + total > len(data):
        raise BrokenImageError(f"cut off: its field {tag} points beyond the end")
    if kind not in _TIFF_INTEGERS:
        return tag, ()
    return tag, struct.unpack_from(f"{layout.order}{count}{_TIFF_INTEGERS[kind]}", data, start)

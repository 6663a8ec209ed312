"""Test that broken images give a one-line error and never a traceback of a library."""

import contextlib
import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ImageFile import ImageFile as PillowFile

from segnetr.data.readers.read_files import read_image, read_mask
from segnetr.errors import ReadError

SIZE = (40, 56)


def draw(channels: int = 3) -> np.ndarray:
    shape = SIZE if channels == 1 else (*SIZE, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encode(form: str, array: np.ndarray | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(draw() if array is None else array).save(stream, form, **options)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, body: bytes = b"", *, end: bool = True, depth: int = 8) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(body))
    return b"\x89PNG\r\n\x1a\n" + header + data + (chunk(b"IEND", b"") if end else b"")


def flip(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x40]) + data[position + 1 :]


def tiff_pages() -> bytes:
    pages = [Image.fromarray(draw()) for _ in range(3)]
    stream = io.BytesIO()
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
    return stream.getvalue()


def float_tiff(value: float) -> bytes:
    array = np.zeros(SIZE, dtype=np.float32)
    array[3, 4] = value
    return encode("TIFF", array)


def tiff_circle() -> bytes:
    data = bytearray(encode("TIFF"))
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, first)
    return bytes(data)


def bmp_of_size(width: int, height: int) -> bytes:
    return (
        b"BM"
        + struct.pack("<IHHI", 0, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    )


BROKEN: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty png": ("a.png", lambda: b"", "empty"),
    "empty jpeg": ("a.jpg", lambda: b"", "empty"),
    "empty tiff": ("a.tif", lambda: b"", "empty"),
    "text named png": ("a.png", lambda: b"hello, I am text\n" * 9, "holds no image"),
    "text named bmp": ("a.bmp", lambda: b"hello, I am text\n" * 9, "holds no image"),
    "gif named png": ("a.png", lambda: encode("GIF"), "holds no image"),
    "webp named jpg": ("a.jpg", lambda: encode("PPM"), "holds no image"),
    "html named jpg": ("a.jpg", lambda: b"<!DOCTYPE html><p>404", "holds no image"),
    "zeros named png": ("a.png", lambda: bytes(4096), "holds no image"),
    "png signature alone": ("a.png", lambda: encode("PNG")[:8], "PNG"),
    "png without data": ("a.png", lambda: png(56, 40, end=True), "PNG"),
    "png with too few rows": ("a.png", lambda: png(56, 40, bytes(169 * 20)), "PNG"),
    "png without end": ("a.png", lambda: png(2, 2, bytes(14), end=False), "IEND"),
    "png of width zero": ("a.png", lambda: png(0, 40, b""), "PNG"),
    "png of odd depth": ("a.png", lambda: png(2, 2, bytes(14), depth=7), "PNG"),
    "png with a flipped byte": ("a.png", lambda: flip(encode("PNG"), 500), "checksum"),
    "png with a flipped header": ("a.png", lambda: flip(encode("PNG"), 18), "PNG"),
    "png of 100000 x 100000": ("a.png", lambda: png(100_000, 100_000), "data.max_pixels"),
    "bmp of 100000 x 100000": ("a.bmp", lambda: bmp_of_size(100_000, 100_000), "data.max_pixels"),
    "bmp without pixels": ("a.bmp", lambda: bmp_of_size(56, 40), "cut off"),
    "jpeg without scan": ("a.jpg", lambda: b"\xff\xd8\xff\xd9", "JPEG"),
    "jpeg without end": ("a.jpg", lambda: encode("JPEG")[:-2], "EOI"),
    "jpeg of zeros": ("a.jpg", lambda: b"\xff\xd8\xff" + bytes(2000), "JPEG"),
    "tiff of three pages": ("a.tif", tiff_pages, "3 pages"),
    "tiff in a circle": ("a.tif", tiff_circle, "cycle"),
    "tiff with NaN": ("a.tif", lambda: float_tiff(float("nan")), "1 of 2240 values"),
    "tiff with infinity": ("a.tif", lambda: float_tiff(float("inf")), "NaN or infinite"),
    "tiff signature alone": ("a.tiff", lambda: b"II*\0", "TIFF"),
    "foreign suffix": ("a.gif", lambda: encode("GIF"), "not read"),
}


def refuse(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        read_image(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert len(message) < len(str(path)) + 260
    return message


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_image_gives_a_one_line_error_with_the_reason(kind: str, tmp_path: Path) -> None:
    name, build, reason = BROKEN[kind]
    path = tmp_path / name
    path.write_bytes(build())
    assert reason in refuse(path)
    with pytest.raises(ReadError):
        read_mask(path, classes=2)


WHOLE: dict[str, Callable[[], bytes]] = {
    "a.png": lambda: encode("PNG"),
    "a.jpg": lambda: encode("JPEG", quality=90),
    "progressive.jpg": lambda: encode("JPEG", progressive=True),
    "a.bmp": lambda: encode("BMP"),
    "one_bit.bmp": lambda: encode("BMP", draw(1) > 128),
    "a.tif": lambda: encode("TIFF"),
    "packed.tif": lambda: encode("TIFF", compression="tiff_lzw"),
    "deflated.tiff": lambda: encode("TIFF", draw(1), compression="tiff_adobe_deflate"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_image_truncated_at_any_percent_is_rejected(name: str, tmp_path: Path) -> None:
    data = WHOLE[name]()
    path = tmp_path / name
    path.write_bytes(data)
    read_image(path)
    cuts = {len(data) * percent // 100 for percent in range(100)}
    for cut in sorted(cuts | set(range(len(data) - 24, len(data)))):
        path.write_bytes(data[:cut])
        refuse(path)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_raise_read_error_or_nothing(name: str, tmp_path: Path) -> None:
    data = WHOLE[name]()
    path = tmp_path / name
    rng = np.random.default_rng(1)
    positions = [*range(min(len(data), 160)), *rng.integers(0, len(data), 60).tolist()]
    for position in positions:
        path.write_bytes(flip(data, position))
        # Some flips only change a value. Any other exception fails the test.
        with contextlib.suppress(ReadError):
            read_image(path, max_pixels=1_000_000)


def test_huge_claimed_size_is_rejected_before_memory_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png(100_000, 100_000))
    monkeypatch.setattr(PillowFile, "load", lambda _self: pytest.fail("the image was decoded"))
    tracemalloc.start()
    message = refuse(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    assert "100000 x 100000 = 10000000000 pixels" in message
    assert "limit of 200000000" in message
    assert "--set data.max_pixels=10000000000" in message


def test_max_pixels_is_an_inclusive_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode("PNG"))
    assert read_image(path, max_pixels=SIZE[0] * SIZE[1]).array.shape == (*SIZE, 3)
    with pytest.raises(ReadError, match="more than the limit of 2239"):
        read_image(path, max_pixels=SIZE[0] * SIZE[1] - 1)


def test_max_pixels_above_the_limit_of_pillow_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = tmp_path / "a.png"
    path.write_bytes(encode("PNG"))
    assert read_image(path).array.shape == (*SIZE, 3)


def test_end_marker_of_a_thumbnail_does_not_hide_a_truncated_jpeg(tmp_path: Path) -> None:
    thumbnail = encode("JPEG", draw()[:8, :8])
    data = encode("JPEG", comment=thumbnail)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    read_image(path)
    path.write_bytes(data[:-2])
    assert "EOI" in refuse(path)


def test_missing_file_and_folder_are_rejected(tmp_path: Path) -> None:
    assert "No such file" in refuse(tmp_path / "absent.png")
    folder = tmp_path / "folder.png"
    folder.mkdir()
    assert "directory" in refuse(folder)

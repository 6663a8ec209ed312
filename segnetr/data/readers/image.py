"""PNG, JPEG, BMP and TIFF pictures, decoded by Pillow once their bytes have been checked.

Decisions that a reader of the files may want to know:

* Orientation marks of cameras (EXIF) are not applied, neither to images nor to masks: an array is
  on the grid of the file as stored, and so is the mask made from it. A note says so.
* Transparency is dropped, not blended with a background of our choice. A note says so.
* Grey pictures keep 16 and 32 bit. Pillow reads colour of 16 bit as 8 bit; a note says so.
* A TIFF file with several full pages is a volume (`tiff_pages`); here it is refused, because
  reading one of its pages would lose the others.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL import ImageFile as PillowFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from segnetr.data.readers.image_file import (
    ImageFile,
    check_extent,
    check_finite,
    describe_os_error,
    find_suffix,
)
from segnetr.data.readers.image_integrity import (
    BrokenPictureError,
    PictureFormat,
    check_structure,
    find_format,
)
from segnetr.errors import ReadError

# The classes stand here instead of Image.open because its limit on pixels is one number for the
# whole process; ours is an argument. This is also the list of formats that are allowed at all.
_DECODERS: dict[PictureFormat, type[PillowFile.ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
}
_FORMAT_OF_SUFFIX: dict[str | None, PictureFormat] = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip

DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    OverflowError, EOFError, ZeroDivisionError, NotImplementedError, MemoryError, RuntimeError,
    Image.DecompressionBombError, Warning, struct.error, zlib.error,
)  # fmt: skip
"""What Pillow's decoders raise on damaged bytes, found by cutting and flipping them."""

_ORIENTATION_TAG = 0x0112
_TIFF_BITS = 258
_TIFF_SAMPLE_FORMAT = 339
_PNG_DEPTH_BYTE = 24
_BYTES_FOR_METADATA = 64 * 2**20
_LUMINANCE = (299, 587, 114)  # ITU-R BT.601, in thousandths


def decode_picture(path: Path, *, max_pixels: int) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode a picture whose bytes are complete, in the mode of its file.

    Args:
        path: A PNG, JPEG, BMP or TIFF file.
        max_pixels: Refuse more pixels than this before memory is taken for them.

    Returns:
        The decoded picture, and notes for people.

    Raises:
        ReadError: If the file is missing, empty, foreign, too large, cut off or damaged.
    """
    data, picture_format, notes = _read_bytes(path, max_pixels=max_pixels)
    try:
        check_structure(data, picture_format)
    except BrokenPictureError as error:
        raise ReadError(path, f"damaged {picture_format} file: {error}") from error
    try:
        picture: Image.Image = _DECODERS[picture_format](io.BytesIO(data))
        check_extent(path, (picture.width, picture.height), max_pixels=max_pixels)
        picture.load()
        turned = picture.getexif().get(_ORIENTATION_TAG, 1)
        is_deep = _is_deep_colour(data, picture)
    except DECODE_ERRORS as error:
        raise describe_damage(path, picture_format, error) from error
    if is_deep:
        notes += ("colours of 16 bit are read as 8 bit",)
    if turned not in (0, 1):
        notes += (f"EXIF orientation {turned} is not applied: the grid is that of the stored file",)
    return picture, notes


def read_picture(path: Path, *, channels: int | None = None, max_pixels: int) -> ImageFile:
    """Read a picture as grey values or colours.

    Args:
        path: A PNG, JPEG, BMP or TIFF file.
        channels: 3 repeats grey values, 1 turns colours into luminance (ITU-R BT.601), None
            leaves the number as it is.
        max_pixels: Refuse more pixels than this.

    Returns:
        An array (H, W, C) and notes.

    Raises:
        ReadError: As `decode_picture`; or if the picture cannot have that many channels.
    """
    picture, notes = decode_picture(path, max_pixels=max_pixels)
    try:
        array, more = _picture_values(picture)
    except DECODE_ERRORS as error:
        raise describe_damage(path, picture.format or "picture", error) from error
    check_finite(path, array)
    if channels is not None:
        array = fit_channels(path, array, channels=channels)
    return ImageFile(path=path, array=array, kind="picture", notes=notes + more)


def measure_pixels(path: Path) -> int:
    """Give the number of pixels a picture's header claims; 0 where `read_picture` will refuse it.

    No pixel is decoded.
    """
    try:
        with path.open("rb") as stream:
            picture_format = find_format(stream.read(16))
            if picture_format is None:
                return 0
            stream.seek(0)
            picture = _DECODERS[picture_format](stream)
            return int(picture.width * picture.height)
    except DECODE_ERRORS:
        return 0


def native_grey(picture: Image.Image) -> NDArray[Any]:
    """Give the values of a picture in native byte order, unsigned where the file says so.

    Pillow has one mode for signed and unsigned 32-bit integers and reads both as signed.
    """
    array = np.asarray(picture)
    array = np.array(array, dtype=array.dtype.newbyteorder("="))
    if array.dtype != np.int32:
        return array
    is_unsigned = (
        isinstance(picture, TiffImageFile) and picture.tag_v2.get(_TIFF_SAMPLE_FORMAT, (1,))[0] == 1
    )
    return array.view(np.uint32) if is_unsigned else array


def _read_bytes(path: Path, *, max_pixels: int) -> tuple[bytes, PictureFormat, tuple[str, ...]]:
    """Read a file whole, after its header has been found harmless."""
    named = _FORMAT_OF_SUFFIX.get(find_suffix(path))
    try:
        with path.open("rb") as stream:
            picture_format = find_format(stream.read(16))
            length = stream.seek(0, io.SEEK_END)
            if length == 0:
                raise ReadError(path, "the file is empty")
            if picture_format is None:
                raise ReadError(path, f"it is named {named or path.suffix} but holds no picture")
            stream.seek(0)
            try:
                picture = _DECODERS[picture_format](stream)
            except DECODE_ERRORS as error:
                raise describe_damage(path, picture_format, error) from error
            check_extent(path, (picture.width, picture.height), max_pixels=max_pixels)
            if length > _BYTES_FOR_METADATA + 16 * picture.width * picture.height:
                raise ReadError(path, f"{length} bytes are more than its pixels explain")
            stream.seek(0)
            data = stream.read()
    except OSError as error:
        raise ReadError(path, describe_os_error(error)) from error
    if picture_format == named:
        return data, picture_format, ()
    return data, picture_format, (f"it is named {path.suffix} but holds {picture_format}",)


def describe_damage(path: Path, picture_format: str, error: BaseException) -> ReadError:
    """Turn what a decoder raised into one line that names the file."""
    if isinstance(error, ReadError):
        return error
    if isinstance(error, MemoryError):
        return ReadError(path, "there is not enough memory for it")
    detail = " ".join(str(error).split())[:120] or type(error).__name__
    return ReadError(path, f"damaged {picture_format} file: {detail}")


def _picture_values(picture: Image.Image) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Turn any mode into (H, W, 1) or (H, W, 3)."""
    notes: tuple[str, ...] = ()
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        picture, notes = _drop_transparency(picture)
    if picture.mode in ("L", "RGB"):
        array = np.asarray(picture)
    elif picture.mode == "1":
        array = np.asarray(picture).astype(np.uint8) * np.uint8(255)
    elif picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        array = native_grey(picture)
    else:
        if picture.mode != "P":
            notes += (f"colours converted from {picture.mode} to RGB",)
        array = np.asarray(picture.convert("RGB"))
    return array.reshape(*array.shape[:2], -1), notes


def _drop_transparency(picture: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    if picture.mode in ("L", "RGB", "1", "I") or picture.mode.startswith("I;16"):
        return picture, ("one colour is marked transparent; the mark is ignored",)
    plain = picture.convert("RGBA")
    opaque = plain.getchannel("A").getextrema() == (255, 255)
    flat = plain.convert("L" if picture.mode in ("LA", "La") else "RGB")
    return flat, () if opaque else ("transparency is dropped",)


def _is_deep_colour(data: bytes, picture: Image.Image) -> bool:
    """Tell whether the file holds more than the 8 bit for each colour that Pillow gives."""
    if len(picture.getbands()) < 3:
        return False
    if isinstance(picture, TiffImageFile):
        return int(max(picture.tag_v2.get(_TIFF_BITS, (8,)))) > 8
    return isinstance(picture, PngImageFile) and data[_PNG_DEPTH_BYTE] > 8


def fit_channels(path: Path, array: NDArray[Any], *, channels: int) -> NDArray[Any]:
    """Bring a picture (H, W, C) to a number of channels; see `read_picture`.

    Raises:
        ReadError: If it cannot have that many.
    """
    present = array.shape[-1]
    if present == channels:
        return array
    if present == 1 and channels == 3:
        return np.repeat(array, 3, axis=-1)
    if present == 3 and channels == 1:
        weights = np.array(_LUMINANCE, dtype=np.uint32)
        total = array.astype(np.uint32) @ weights
        return ((total + 500) // 1000).astype(array.dtype)[..., np.newaxis]
    raise ReadError(path, f"it has {present} channels where {channels} are wanted")

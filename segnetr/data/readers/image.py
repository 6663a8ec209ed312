"""Decode PNG, JPEG, BMP and TIFF images with Pillow after checking that the files are complete.

* The EXIF orientation is not applied, neither to images nor to masks, so the mask of an image is on
  the grid of the stored file. A warning reports it.
* Transparency is dropped and not blended with a background color. A warning reports it.
* Gray images keep 16 and 32 bit. Pillow reads 16-bit colors as 8 bit. A warning reports it.
* A TIFF file with several full pages is a volume (`tiff.py`). This module rejects it, because
  reading one page would lose the others.
"""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

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
    BrokenImageError,
    ImageFormat,
    check_structure,
    find_format,
)
from segnetr.errors import ReadError

# Image.open is not used because its pixel limit is global to the process. Other formats that Pillow
# knows are not read.
_DECODERS: dict[ImageFormat, type[PillowFile.ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
}
_FORMAT_OF_SUFFIX: dict[str | None, ImageFormat] = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip

DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    OverflowError, EOFError, ZeroDivisionError, NotImplementedError, MemoryError, RuntimeError,
    Image.DecompressionBombError, Warning, struct.error, zlib.error,
)  # fmt: skip
"""Errors that Pillow's decoders raise on damaged files, found by truncating and flipping bytes."""

CheckPixels = Callable[[Path, int], None]

_ORIENTATION_TAG = 0x0112
_TIFF_BITS = 258
_TIFF_SAMPLE_FORMAT = 339
_PNG_DEPTH_BYTE = 24
_BYTES_FOR_METADATA = 64 * 2**20
_LUMINANCE = (299, 587, 114)  # ITU-R BT.601, in thousandths


def decode_image(
    path: Path, *, max_pixels: int, check_pixels: CheckPixels | None = None
) -> tuple[Image.Image, tuple[str, ...]]:
    """Decode an image after checking that its bytes are complete.

    The file is opened once, and its header is parsed once.

    Args:
        path: A PNG, JPEG, BMP or TIFF file.
        max_pixels: Reject more pixels than this before memory is allocated.
        check_pixels: Called with the path and the number of pixels before memory is allocated.
            It may raise `ReadError`.

    Returns:
        The decoded image in the mode of its file, and warnings.

    Raises:
        ReadError: If the file is missing, empty, not an image, too large, truncated or damaged.
    """
    image_format: str = "image"
    try:
        with path.open("rb") as stream:
            image_format, image, length = _open_header(path, stream)
            check_extent(path, (image.width, image.height), max_pixels=max_pixels)
            if check_pixels is not None:
                check_pixels(path, image.width * image.height)
            if length > _BYTES_FOR_METADATA + 16 * image.width * image.height:
                raise ReadError(path, f"{length} bytes are too many for its number of pixels")
            is_deep = _check_bytes(path, stream, image_format, image)
            image.load()
            orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except OSError as error:
        if error.errno is not None:
            raise ReadError(path, describe_os_error(error)) from error
        raise describe_image_damage(path, image_format, error) from error
    except DECODE_ERRORS as error:
        raise describe_image_damage(path, image_format, error) from error
    warnings: tuple[str, ...] = ()
    if image_format != _FORMAT_OF_SUFFIX.get(find_suffix(path)):
        warnings += (f"it is named {path.suffix} but holds {image_format}",)
    if is_deep:
        warnings += ("colors of 16 bit are read as 8 bit",)
    if orientation not in (0, 1):
        warnings += (
            f"EXIF orientation {orientation} is not applied: the grid is that of the stored file",
        )
    return image, warnings


def _open_header(path: Path, stream: BinaryIO) -> tuple[ImageFormat, PillowFile.ImageFile, int]:
    """Return the format, the image without its pixels, and the length of the file."""
    image_format = find_format(stream.read(16))
    length = stream.seek(0, io.SEEK_END)
    if length == 0:
        raise ReadError(path, "the file is empty")
    if image_format is None:
        named = _FORMAT_OF_SUFFIX.get(find_suffix(path))
        raise ReadError(path, f"it is named {named or path.suffix} but holds no image")
    stream.seek(0)
    try:
        return image_format, _DECODERS[image_format](stream), length
    except DECODE_ERRORS as error:
        raise describe_image_damage(path, image_format, error) from error


def _check_bytes(
    path: Path, stream: BinaryIO, image_format: ImageFormat, image: PillowFile.ImageFile
) -> bool:
    """Check that the file is complete. Return whether its colors have more than 8 bit."""
    position = stream.tell()  # the decoder continues here
    stream.seek(0)
    data = stream.read()
    stream.seek(position)
    try:
        check_structure(data, image_format)
    except BrokenImageError as error:
        raise ReadError(path, f"damaged {image_format} file: {error}") from error
    return _is_deep_color(data, image)


def read_image_file(
    path: Path,
    *,
    channels: int | None = None,
    max_pixels: int,
    check_pixels: CheckPixels | None = None,
) -> ImageFile:
    """Read an image as gray values or colors.

    Args:
        path: A PNG, JPEG, BMP or TIFF file.
        channels: 3 repeats gray values, 1 converts colors to luminance (ITU-R BT.601), None
            keeps the number of channels.
        max_pixels: Reject more pixels than this.
        check_pixels: As in `decode_image`.

    Returns:
        An array (H, W, C) and warnings.

    Raises:
        ReadError: As `decode_image`, or if the image cannot be converted to that many channels.
    """
    image, warnings = decode_image(path, max_pixels=max_pixels, check_pixels=check_pixels)
    try:
        array, more = _image_values(image)
    except DECODE_ERRORS as error:
        raise describe_image_damage(path, image.format or "image", error) from error
    check_finite(path, array)
    if channels is not None:
        array = fit_channels(path, array, channels=channels)
    return ImageFile(path=path, array=array, kind="image", warnings=warnings + more)


def native_gray(image: Image.Image) -> NDArray[Any]:
    """Return the values of an image in native byte order, unsigned if the file stores them so.

    Pillow has one mode for signed and unsigned 32-bit integers, and reads both as signed.
    """
    array = np.asarray(image)
    array = np.array(array, dtype=array.dtype.newbyteorder("="))
    if array.dtype != np.int32:
        return array
    is_unsigned = (
        isinstance(image, TiffImageFile) and image.tag_v2.get(_TIFF_SAMPLE_FORMAT, (1,))[0] == 1
    )
    return array.view(np.uint32) if is_unsigned else array


def describe_image_damage(path: Path, image_format: str, error: BaseException) -> ReadError:
    """Convert an error of a decoder into one line that names the file."""
    if isinstance(error, ReadError):
        return error
    if isinstance(error, MemoryError):
        return ReadError(path, "there is not enough memory for it")
    detail = " ".join(str(error).split())[:120] or type(error).__name__
    return ReadError(path, f"damaged {image_format} file: {detail}")


def _image_values(image: Image.Image) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the values of an image in any mode as (H, W, 1) or (H, W, 3), and warnings."""
    warnings: tuple[str, ...] = ()
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image, warnings = _drop_transparency(image)
    if image.mode in ("L", "RGB"):
        array = np.asarray(image)
    elif image.mode == "1":
        array = np.asarray(image).astype(np.uint8) * np.uint8(255)
    elif image.mode in ("I", "F") or image.mode.startswith("I;16"):
        array = native_gray(image)
    else:
        if image.mode != "P":
            warnings += (f"colors converted from {image.mode} to RGB",)
        array = np.asarray(image.convert("RGB"))
    return array.reshape(*array.shape[:2], -1), warnings


def _drop_transparency(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    if image.mode in ("L", "RGB", "1", "I") or image.mode.startswith("I;16"):
        return image, ("one color is marked transparent; the mark is ignored",)
    plain = image.convert("RGBA")
    opaque = plain.getchannel("A").getextrema() == (255, 255)
    flat = plain.convert("L" if image.mode in ("LA", "La") else "RGB")
    return flat, () if opaque else ("transparency is dropped",)


def _is_deep_color(data: bytes, image: Image.Image) -> bool:
    """Return whether the file has more bits per color than the 8 that Pillow reads."""
    if len(image.getbands()) < 3:
        return False
    if isinstance(image, TiffImageFile):
        return int(max(image.tag_v2.get(_TIFF_BITS, (8,)))) > 8
    return isinstance(image, PngImageFile) and data[_PNG_DEPTH_BYTE] > 8


def fit_channels(path: Path, array: NDArray[Any], *, channels: int) -> NDArray[Any]:
    """Convert an image (H, W, C) to a number of channels; see `read_image_file`.

    Raises:
        ReadError: If the conversion is not defined.
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
    raise ReadError(path, f"it has {present} channels where {channels} are expected")

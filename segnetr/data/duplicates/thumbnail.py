"""What the search for images that are alike knows of a file: its hash, its size, a thumbnail.

A thumbnail is found again by the content of the file, so that a image is decoded once in its
life. It stands apart from the search so that a decoding process starts without torch and MONAI.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segnetr.data.cache.pairs import hash_original
from segnetr.data.cache.store import CacheFolder, FileStamp, is_sound
from segnetr.data.preprocessing.resize import resize_image
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.read_files import read_image
from segnetr.errors import ReadError

SIDE = 64
"""Height and width of a thumbnail in pixels, whatever the proportions of the image."""

# Raise it when a thumbnail is made in another way: old ones are then unused.
_VERSION = 1
_NAME = "thumbnail"
_LUMINANCE = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601
_GRAY_SHARE = (0.5, 99.5)  # percentiles between which other than 8-bit values are shown

Gray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Thumbnail:
    """One file as the search sees it.

    Attributes:
        sha256: Of the file.
        size: (height, width) of the image, or of a slice of the volume, in pixels.
        gray: (SIDE, SIDE) luminance, 0..255, the whole image squashed to a square; of a volume
            its middle slice along the last axis, of several channels the first.
    """

    sha256: str
    size: tuple[int, int]
    gray: Gray


def make_thumbnail(image: ImageFile) -> tuple[tuple[int, int], Gray]:
    """Reduce a image, or the middle slice of a volume, to a small square.

    Returns:
        (height, width) of what was reduced, and the thumbnail (SIDE, SIDE).
    """
    array = image.array
    if image.kind == "volume":
        middle = array[:, :, array.shape[2] // 2]
        array = middle[..., :1] if middle.ndim == 3 else middle[..., None]
    if array.dtype != np.uint8:
        array = _stretch(array)
    # By way of twice the side, so that rounding to whole values is averaged away.
    double = resize_image(np.ascontiguousarray(array), (2 * SIDE, 2 * SIDE)).astype(np.float32)
    gray = double[..., 0] if double.shape[2] == 1 else double @ _LUMINANCE
    small = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return (array.shape[0], array.shape[1]), np.asarray(small, np.float32)


def load_cached_thumbnail(path: Path, *, cache: CacheFolder) -> Thumbnail | None:
    """Find what is known of a file without opening it; None: it has to be built."""
    try:
        sha256 = cache.load_cached_sha256(path.absolute(), FileStamp.of(path))
    except OSError:
        return None
    return None if sha256 is None else _load_cached(path, sha256, cache)


def build_thumbnail(
    path: Path, volume_channels: int, max_pixels: int, cache: CacheFolder
) -> Thumbnail | ReadError:
    """Read a file and keep its thumbnail; arguments as those of `collect_thumbnails`.

    Raises:
        WriteError: If the cache cannot be written.
    """
    try:
        sha256 = hash_original(path, cache)
    except OSError as error:
        return ReadError(path, f"cannot be read ({error.strerror or error})")
    known = _load_cached(path, sha256, cache)
    if known is not None:
        return known
    try:
        image = read_image(path, volume_channels=volume_channels, max_pixels=max_pixels)
        size, gray = make_thumbnail(image)
    except ReadError as error:
        return error  # not kept: the limit of pixels may change, a disk may come back
    key = _make_key(path, sha256)
    cache.write_array(key, _NAME, gray)
    cache.write_record(key, {"size": size})
    return Thumbnail(sha256=sha256, size=size, gray=gray)


def _load_cached(path: Path, sha256: str, cache: CacheFolder) -> Thumbnail | None:
    key = _make_key(path, sha256)
    record = cache.read_record(key)
    array = cache.array_path(key, _NAME)
    if not record or not is_sound(array, shape=(SIDE, SIDE), dtype="float32"):
        return None
    height, width = record["size"]
    gray = np.load(array, allow_pickle=False)
    return Thumbnail(sha256=sha256, size=(height, width), gray=gray)


def _make_key(path: Path, sha256: str) -> str:
    # With the ending, because readers choose the decoder by it.
    text = f"thumbnail {_VERSION} {sha256} {path.suffix.lower()}"
    return hashlib.sha256(text.encode()).hexdigest()


def _stretch(array: NDArray[Any]) -> Gray:
    """Bring deep or real values to 0..255 between two percentiles."""
    values = array.astype(np.float32)
    low, high = np.percentile(values[:: max(1, len(values) // 1000)], _GRAY_SHARE)
    if high <= low:
        low, high = float(values.min()), float(values.max())
    scale = np.float32(255 / ((high - low) or 1.0))
    return np.asarray(np.clip((values - np.float32(low)) * scale, 0, 255), np.float32)

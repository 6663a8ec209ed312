"""Thumbnails of image files, the input of the search for duplicates.

A thumbnail is stored in the cache by the content of its file, so each image is decoded only once.
Decoding processes import this module, so it must not import torch or MONAI.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segnetr.data.cache.store import CacheFolder, hash_cached_file, is_intact, run_jobs
from segnetr.data.preprocessing.resize import resize_image
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.read_files import read_image
from segnetr.errors import ReadError

SIDE = 64
"""Height and width of a thumbnail in pixels, for any aspect ratio of the image."""

# Increase this number when thumbnails are computed differently. Old ones are then not used.
_VERSION = 1
_NAME = "thumbnail"
_LUMINANCE = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601
_DISPLAY_PERCENTILES = (0.5, 99.5)  # mapped to 0 and 255 for values other than 8-bit

Gray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Thumbnail:
    """The features of one file that the search uses.

    Attributes:
        sha256: Hash of the file.
        size: (height, width) of the image, or of a slice of the volume, in pixels.
        gray: (SIDE, SIDE) luminance, 0..255, of the whole image resized to a square. For volumes,
            the middle slice along the last axis and its first channel.
    """

    sha256: str
    size: tuple[int, int]
    gray: Gray


def make_thumbnail(image: ImageFile) -> tuple[tuple[int, int], Gray]:
    """Resize an image, or the middle slice of a volume, to a small square.

    Returns:
        (height, width) of the image or slice, and the thumbnail (SIDE, SIDE).
    """
    array = image.array
    if image.kind == "volume":
        middle = array[:, :, array.shape[2] // 2]
        array = middle[..., :1] if middle.ndim == 3 else middle[..., None]
    if array.dtype != np.uint8:
        array = _stretch(array)
    # Through twice the side, so that rounding errors are averaged out.
    double = resize_image(np.ascontiguousarray(array), (2 * SIDE, 2 * SIDE)).astype(np.float32)
    gray = double[..., 0] if double.shape[2] == 1 else double @ _LUMINANCE
    small = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return (array.shape[0], array.shape[1]), np.asarray(small, np.float32)


def collect_thumbnails(
    paths: Sequence[Path],
    *,
    volume_channels: Sequence[int] | None = None,
    max_pixels: int,
    folder: Path | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Thumbnail | ReadError]:
    """Return the thumbnail of each file, or the error if it cannot be read.

    Args:
        paths: Images and volumes.
        volume_channels: For each file, as in `read_image`. None: one.
        max_pixels: Larger images are refused before memory is allocated for them.
        folder: Cache folder. None: the user's cache folder.
        workers: Decoding processes. With 0 or 1, this process decodes.
        progress: Called with (finished files, all files).

    Raises:
        WriteError: If the folder cannot be written.
        SegNetrError: If a decoding process was killed.
    """
    cache = CacheFolder.open(folder)
    channels_by_path = volume_channels or [1] * len(paths)
    thumbnails: dict[int, Thumbnail | ReadError] = {}
    jobs: dict[int, tuple[Path, int, int, CacheFolder]] = {}
    for row, (path, channels) in enumerate(zip(paths, channels_by_path, strict=True)):
        thumbnail = load_cached_thumbnail(path, cache=cache)
        if thumbnail is None:
            jobs[row] = (path, channels, max_pixels, cache)
        else:
            thumbnails[row] = thumbnail
    if jobs:
        cache.remove_old_parts()
    for row, result in run_jobs(build_thumbnail, jobs, workers=workers):
        thumbnails[row] = result
        if progress is not None:
            progress(len(thumbnails), len(paths))
    return [thumbnails[row] for row in range(len(paths))]


def load_cached_thumbnails(paths: Sequence[Path], *, folder: Path | None) -> list[Thumbnail] | None:
    """Return the thumbnails of files without opening them, or None if one is not in the cache."""
    cache = CacheFolder.open(folder)
    thumbnails = []
    for path in paths:
        thumbnail = load_cached_thumbnail(path, cache=cache)
        if thumbnail is None:
            return None
        thumbnails.append(thumbnail)
    return thumbnails


def load_cached_thumbnail(path: Path, *, cache: CacheFolder) -> Thumbnail | None:
    """Return a file's thumbnail without opening the file, or None if it is not in the cache."""
    sha256 = cache.load_sha256(path)
    return None if sha256 is None else _load_record(path, sha256, cache)


def build_thumbnail(
    path: Path, volume_channels: int, max_pixels: int, cache: CacheFolder
) -> Thumbnail | ReadError:
    """Read a file and store its thumbnail. For the arguments, see `collect_thumbnails`.

    Raises:
        WriteError: If the cache cannot be written.
    """
    try:
        sha256 = hash_cached_file(path, cache)
    except OSError as error:
        return ReadError(path, f"cannot be read ({error.strerror or error})")
    known = _load_record(path, sha256, cache)
    if known is not None:
        return known
    try:
        image = read_image(path, volume_channels=volume_channels, max_pixels=max_pixels)
        size, gray = make_thumbnail(image)
    except ReadError as error:
        return error  # not stored, because the pixel limit may change or a disk may recover
    key = _make_key(path, sha256)
    cache.write_array(key, _NAME, gray)
    cache.write_record(key, {"size": size})
    return Thumbnail(sha256=sha256, size=size, gray=gray)


def _load_record(path: Path, sha256: str, cache: CacheFolder) -> Thumbnail | None:
    key = _make_key(path, sha256)
    record = cache.read_record(key)
    array = cache.array_path(key, _NAME)
    if not record or not is_intact(array, shape=(SIDE, SIDE), dtype="float32"):
        return None
    height, width = record["size"]
    gray = np.load(array, allow_pickle=False)
    return Thumbnail(sha256=sha256, size=(height, width), gray=gray)


def _make_key(path: Path, sha256: str) -> str:
    # Includes the suffix, because the readers choose the decoder by it.
    text = f"thumbnail {_VERSION} {sha256} {path.suffix.lower()}"
    return hashlib.sha256(text.encode()).hexdigest()


def _stretch(array: NDArray[Any]) -> Gray:
    """Map 16-bit or float values to 0..255 between two percentiles."""
    values = array.astype(np.float32)
    low, high = np.percentile(values[:: max(1, len(values) // 1000)], _DISPLAY_PERCENTILES)
    if high <= low:
        low, high = float(values.min()), float(values.max())
    scale = np.float32(255 / ((high - low) or 1.0))
    return np.asarray(np.clip((values - np.float32(low)) * scale, 0, 255), np.float32)

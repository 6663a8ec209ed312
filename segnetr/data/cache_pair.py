"""One image and its mask on their way into the cache: what a decoding process does.

It stands apart from the cache so that such a process starts without torch and MONAI.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from segnetr.data.cache_folder import CacheFolder, FileStamp, is_sound
from segnetr.data.cache_volume import VolumeSettings, make_slice_copies
from segnetr.data.case_check import compare_grids
from segnetr.data.image_file import DEFAULT_MAX_PIXELS, MaskValuesError
from segnetr.data.read_files import read_image, read_mask, read_mask_file
from segnetr.data.resize import Array, reduce_size, resize_image, resize_mask
from segnetr.errors import ReadError, WriteError


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """What a cached copy depends on beside the files.

    Attributes:
        side: Length of the copy's shorter side in pixels; smaller pictures stay as they are.
        channels: Channels of the pictures.
        classes: Number of classes of the masks.
        max_pixels: Larger pictures are refused.
        volume: How volumes become slices; None: the images are pictures.
    """

    side: int
    channels: int
    classes: int
    max_pixels: int = DEFAULT_MAX_PIXELS
    volume: VolumeSettings | None = None


@dataclass(frozen=True, slots=True)
class PairCopies:
    """The copies of a sound pair.

    Attributes:
        key: By which the cache folder finds them.
        original_size: (height, width) of the original picture in pixels, (X, Y, Z) of a volume.
        filled: Of a volume: whether each of its slices has foreground.
    """

    key: str
    original_size: tuple[int, ...]
    filled: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a pair, without its names, which may change while the bytes do not.

    Attributes:
        of: Which of the two files.
        kind: A code of `segnetr.data.audit`, or "changing".
        reason: For people, to stand behind the file's name.
    """

    of: Literal["image", "mask"]
    kind: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A sound pair, reduced; see `PairCopies`."""

    image: Array
    mask: Array
    original_size: tuple[int, ...]
    filled: tuple[bool, ...] = ()


def recall_pair(
    image: Path, mask: Path, *, settings: CacheSettings, cache: CacheFolder
) -> PairCopies | Finding | None:
    """Find what is known of a pair without opening its files; None: it has to be built."""
    hashes = []
    for path in (image, mask):
        try:
            sha256 = cache.recall_sha256(path.absolute(), FileStamp.of(path))
        except OSError:
            return None
        if sha256 is None:
            return None
        hashes.append(sha256)
    return _recall(_make_key((image, mask), hashes, settings), cache)


def build_pair(
    image: Path, mask: Path, settings: CacheSettings, cache: CacheFolder
) -> PairCopies | Finding:
    """Read, check, reduce and write a pair; only what its bytes decide is remembered.

    Raises:
        WriteError: If the cache cannot be written.
    """
    paths = (image, mask)
    try:
        stamps = [FileStamp.of(path) for path in paths]
        hashes = [hash_original(path, cache) for path in paths]
        key = _make_key(paths, hashes, settings)
        known = _recall(key, cache)
        if known is not None:
            return known
        decoded = _decode(image, mask, settings)
        if [FileStamp.of(path) for path in paths] != stamps:
            return Finding("image", "changing", "it or its mask changed while it was read")
    except OSError as error:
        return _describe_os_error(error, mask)
    if isinstance(decoded, Finding):
        cache.write_record(key, {"fault": asdict(decoded)})
        return decoded
    _store(decoded, cache, key)
    built = _recall(key, cache)
    if built is None:
        raise WriteError(f"{cache.root}: a copy just written cannot be read back; check the disk")
    return built


def start_worker() -> None:
    """Prepare a decoding process: one thread, deaf to Ctrl-C, and gone when its parent is."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    # A process whose parent was killed would wait for work for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _recall(key: str, cache: CacheFolder) -> PairCopies | Finding | None:
    record = cache.read_record(key)
    if "fault" in record:
        return Finding(**record["fault"])
    if not record:
        return None
    for name in ("image", "mask"):
        shape, dtype = tuple(record[name]["shape"]), record[name]["dtype"]
        if not is_sound(cache.array_path(key, name), shape=shape, dtype=dtype):
            return None
    return PairCopies(key, tuple(record["original_size"]), tuple(record.get("filled", ())))


def _decode(image: Path, mask: Path, settings: CacheSettings) -> Decoded | Finding:
    """Read and reduce a pair, or say what is wrong with it."""
    try:
        if settings.volume is not None:
            return _decode_volume(image, mask, settings, settings.volume)
        return _decode_picture(image, mask, settings)
    except ReadError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from error  # the disk's fault, not the file's: not to be remembered
        return _describe_read_error(error, mask)


def _decode_volume(
    image: Path, mask: Path, settings: CacheSettings, how: VolumeSettings
) -> Decoded | Finding:
    limit = settings.max_pixels
    volume = read_image(image, volume_channels=settings.channels, max_pixels=limit)
    if volume.kind != "volume":
        return Finding("image", "not-a-volume", "it is a picture where a volume is expected")
    labels = read_mask_file(mask, classes=settings.classes, max_pixels=limit)
    different = compare_grids(volume, labels)
    if different is not None:
        return Finding("mask", *different)
    copies = make_slice_copies(volume, labels, how, side=settings.side)
    return Decoded(copies.image, copies.mask, volume.grid, copies.filled)


def _decode_picture(image: Path, mask: Path, settings: CacheSettings) -> Decoded | Finding:
    limit = settings.max_pixels
    picture = read_image(image, channels=settings.channels, max_pixels=limit)
    if picture.kind != "picture":
        return Finding("image", "not-a-picture", "it is a volume where a picture is expected")
    labels = read_mask(mask, classes=settings.classes, max_pixels=limit)
    height, width = picture.array.shape[:2]
    if labels.shape != (height, width):
        shown = " x ".join(map(str, labels.shape))
        reason = (
            f"the mask is {shown} where its image {image.name} is {height} x {width}; "
            "leave the case out or repair the mask"
        )
        return Finding("mask", "size-mismatch", reason)
    size = reduce_size((height, width), settings.side)
    array = picture.array
    if array.dtype not in (np.uint8, np.uint16):
        array = array.astype(np.float32)
    return Decoded(resize_image(array, size), resize_mask(labels, size), (height, width))


def _describe_read_error(error: ReadError, mask: Path) -> Finding:
    if isinstance(error, MaskValuesError):
        return Finding("mask", "mask-values", error.reason)
    if error.path == mask:
        return Finding("mask", "mask-unreadable", error.reason)
    return Finding("image", "image-unreadable", error.reason)


def _describe_os_error(error: OSError, mask: Path) -> Finding:
    of: Literal["image", "mask"] = "mask" if error.filename == str(mask) else "image"
    kind = f"{of}-missing" if isinstance(error, FileNotFoundError) else f"{of}-unreadable"
    return Finding(of, kind, f"cannot be read ({error.strerror or error})")


def _store(decoded: Decoded, cache: CacheFolder, key: str) -> None:
    record: dict[str, Any] = {"original_size": list(decoded.original_size)}
    if decoded.filled:
        record["filled"] = list(decoded.filled)
    for name, array in (("image", decoded.image), ("mask", decoded.mask)):
        cache.write_array(key, name, array)
        record[name] = {"shape": array.shape, "dtype": array.dtype.name}
    cache.write_record(key, record)


def hash_original(path: Path, cache: CacheFolder) -> str:
    """Hash an original file, and remember its hash.

    Raises:
        OSError: If the file cannot be read.
        WriteError: If the cache cannot be written.
    """
    stamp = FileStamp.of(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    cache.remember_sha256(path.absolute(), stamp, sha256)
    return sha256


def _make_key(paths: Sequence[Path], hashes: Sequence[str], settings: CacheSettings) -> str:
    # With the endings, because readers choose the decoder by them.
    endings = [path.suffix.lower() for path in paths]
    # Without what is not set, so that copies of pictures keep the names they had before volumes.
    chosen = {name: value for name, value in asdict(settings).items() if value is not None}
    text = json.dumps([*hashes, *endings, chosen])
    return hashlib.sha256(text.encode()).hexdigest()

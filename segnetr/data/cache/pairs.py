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

from segnetr.data.cache.store import CacheFolder, FileStamp, is_sound
from segnetr.data.cache.volumes import VolumeSettings, make_slice_copies
from segnetr.data.preprocessing.resize import Array, reduce_size, resize_image, resize_mask
from segnetr.data.readers.image_file import (
    DEFAULT_MAX_PIXELS,
    ClassValues,
    MaskFile,
    MaskSizeError,
    MaskValuesError,
)
from segnetr.data.readers.masks import find_values
from segnetr.data.readers.read_files import read_ground_truth, read_image
from segnetr.data.validation.case_check import compare_grids
from segnetr.errors import ReadError, WriteError


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """What a cached copy depends on beside the files.

    Attributes:
        side: Length of the copy's shorter side in pixels; smaller images stay as they are.
        channels: Channels of the images.
        classes: Number of classes of the masks.
        values: Values of each class in the mask files; None: as `read_mask_file` says.
        max_pixels: Larger images are refused.
        volume: How volumes become slices; None: the images are images.
    """

    side: int
    channels: int
    classes: int
    values: ClassValues | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    volume: VolumeSettings | None = None


@dataclass(frozen=True, slots=True)
class PairCopies:
    """The copies of a sound pair.

    Attributes:
        key: By which the cache folder finds them.
        original_size: (height, width) of the original image in pixels, (X, Y, Z) of a volume.
        classes: Indices of the classes that the original mask shows.
        filled: Of a volume: whether each of its slices has foreground.
    """

    key: str
    original_size: tuple[int, ...]
    classes: tuple[int, ...]
    has_foreground: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a pair, without its names, which may change while the bytes do not.

    Attributes:
        of: Image or mask.
        kind: A code of `segnetr.data.validation.audit`, or "changing".
        reason: For people, to stand behind the file's name.
        place: Which of the mask files.
    """

    of: Literal["image", "mask"]
    kind: str
    reason: str
    place: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A sound pair, reduced; see `PairCopies`."""

    image: Array
    mask: Array
    original_size: tuple[int, ...]
    classes: tuple[int, ...]
    has_foreground: tuple[bool, ...] = ()


def load_cached_pair(
    image: Path, masks: Sequence[Path], *, settings: CacheSettings, cache: CacheFolder
) -> PairCopies | Finding | None:
    """Find what is known of a pair without opening its files; None: it has to be built."""
    hashes = []
    for path in (image, *masks):
        try:
            sha256 = cache.load_cached_sha256(path.absolute(), FileStamp.of(path))
        except OSError:
            return None
        if sha256 is None:
            return None
        hashes.append(sha256)
    return _load_cached(_make_key((image, *masks), hashes, settings), cache)


def build_pair(
    image: Path, masks: Sequence[Path], settings: CacheSettings, cache: CacheFolder
) -> PairCopies | Finding:
    """Read, check, reduce and write a pair; only what its bytes decide is remembered.

    Raises:
        WriteError: If the cache cannot be written.
    """
    paths = (image, *masks)
    try:
        stamps = [FileStamp.of(path) for path in paths]
        hashes = [hash_original(path, cache) for path in paths]
        key = _make_key(paths, hashes, settings)
        known = _load_cached(key, cache)
        if known is not None:
            return known
        decoded = _decode(image, masks, settings)
        if [FileStamp.of(path) for path in paths] != stamps:
            return Finding("image", "changing", "it or its mask changed while it was read")
    except OSError as error:
        return _describe_os_error(error, masks)
    if isinstance(decoded, Finding):
        cache.write_record(key, {"issue": asdict(decoded)})
        return decoded
    _store(decoded, cache, key)
    built = _load_cached(key, cache)
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


def _load_cached(key: str, cache: CacheFolder) -> PairCopies | Finding | None:
    record = cache.read_record(key)
    if "issue" in record:
        return Finding(**record["issue"])
    if "classes" not in record:  # none, or that of an earlier version
        return None
    for name in ("image", "mask"):
        shape, dtype = tuple(record[name]["shape"]), record[name]["dtype"]
        if not is_sound(cache.array_path(key, name), shape=shape, dtype=dtype):
            return None
    classes = tuple(record["classes"])
    return PairCopies(key, tuple(record["original_size"]), classes, tuple(record["filled"]))


def _decode(image: Path, masks: Sequence[Path], settings: CacheSettings) -> Decoded | Finding:
    """Read and reduce a pair, or say what is wrong with it."""
    try:
        if settings.volume is not None:
            return _decode_volume(image, masks, settings, settings.volume)
        return _decode_image(image, masks, settings)
    except ReadError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from error  # the disk's issue, not the file's: not to be remembered
        return _describe_read_error(error, masks)


def _decode_volume(
    image: Path, masks: Sequence[Path], settings: CacheSettings, how: VolumeSettings
) -> Decoded | Finding:
    volume = read_image(image, volume_channels=settings.channels, max_pixels=settings.max_pixels)
    if volume.kind != "volume":
        return Finding("image", "not-a-volume", "it is a image where a volume is expected")
    ground_truth = _read_masks(masks, settings)
    different = compare_grids(volume, ground_truth)
    if different is not None:
        return Finding("mask", *different)
    copies = make_slice_copies(volume, ground_truth, how, side=settings.side)
    shown = _find_classes(ground_truth)
    return Decoded(copies.image, copies.mask, volume.grid, shown, copies.has_foreground)


def _decode_image(image: Path, masks: Sequence[Path], settings: CacheSettings) -> Decoded | Finding:
    pixels = read_image(image, channels=settings.channels, max_pixels=settings.max_pixels)
    if pixels.kind != "image":
        return Finding("image", "not-a-image", "it is a volume where a image is expected")
    ground_truth = _read_masks(masks, settings)
    labels = ground_truth.array
    height, width = pixels.array.shape[:2]
    if labels.shape != (height, width):
        shown = " x ".join(map(str, labels.shape))
        reason = (
            f"the mask is {shown} where its image {image.name} is {height} x {width}; "
            "leave the case out or repair the mask"
        )
        return Finding("mask", "size-mismatch", reason)
    size = reduce_size((height, width), settings.side)
    array = pixels.array
    if array.dtype not in (np.uint8, np.uint16):
        array = array.astype(np.float32)
    copies = resize_image(array, size), resize_mask(labels, size)
    return Decoded(*copies, (height, width), _find_classes(ground_truth))


def _read_masks(masks: Sequence[Path], settings: CacheSettings) -> MaskFile:
    return read_ground_truth(
        masks, classes=settings.classes, values=settings.values, max_pixels=settings.max_pixels
    )


def _find_classes(ground_truth: MaskFile) -> tuple[int, ...]:
    return tuple(find_values(ground_truth.array).tolist())


def _describe_read_error(error: ReadError, masks: Sequence[Path]) -> Finding:
    kinds: dict[type[ReadError], str] = {
        MaskValuesError: "mask-values",
        MaskSizeError: "size-mismatch",
    }
    if error.path in masks:
        kind = kinds.get(type(error), "mask-unreadable")
        return Finding("mask", kind, error.reason, masks.index(error.path))
    return Finding("image", "image-unreadable", error.reason)


def _describe_os_error(error: OSError, masks: Sequence[Path]) -> Finding:
    names = [str(mask) for mask in masks]
    of: Literal["image", "mask"] = "mask" if error.filename in names else "image"
    place = names.index(error.filename) if of == "mask" else 0
    kind = f"{of}-missing" if isinstance(error, FileNotFoundError) else f"{of}-unreadable"
    return Finding(of, kind, f"cannot be read ({error.strerror or error})", place)


def _store(decoded: Decoded, cache: CacheFolder, key: str) -> None:
    record: dict[str, Any] = {
        "original_size": list(decoded.original_size),
        "classes": list(decoded.classes),
        "filled": list(decoded.has_foreground),
    }
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
    # Without what is not set, so that copies of images keep the names they had before volumes.
    chosen = {name: value for name, value in asdict(settings).items() if value is not None}
    text = json.dumps([*hashes, *endings, chosen])
    return hashlib.sha256(text.encode()).hexdigest()

"""Decoded, downsampled copies of images without masks; with masks: `segmentation.py`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from segnetr.data.cache.pairs import hash_original
from segnetr.data.cache.segmentation import Progress, run_jobs
from segnetr.data.cache.store import CacheFolder, FileStamp, find_cache_folder, is_sound
from segnetr.data.preprocessing.resize import reduce_size, resize_image
from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS
from segnetr.data.readers.read_files import read_image
from segnetr.data.validation.audit import Issue
from segnetr.errors import ReadError, WriteError

_NAME = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """What a copy depends on beside the file.

    Attributes:
        side: Length of the copy's shorter side in pixels; smaller images stay as they are.
        channels: Channels of the images.
        max_pixels: Larger images are refused.
    """

    side: int
    channels: int
    max_pixels: int = DEFAULT_MAX_PIXELS


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why a file gives no copy."""

    kind: str
    reason: str


def cache_images(
    files: Sequence[tuple[str, Path]],
    settings: ImageSettings,
    *,
    folder: Path | None,
    workers: int,
    progress: Progress | None = None,
) -> tuple[dict[str, Path], list[Issue]]:
    """Make the copies that are missing, and find the others.

    Args:
        files: Case ids with their files.
        settings: Size, channels and limits.
        folder: Where the copies lie; None: the user's cache folder.
        workers: Decoding processes; up to 1 decodes in this process.
        progress: Called with (files done, all files) now and then, last with all done.

    Returns:
        The copy, a .npy file (h, w, C), of each sound file by case id; and a issue for each other.

    Raises:
        WriteError: If the folder cannot be written.
        SegNetrError: If a decoding process was killed.
    """
    cache = CacheFolder((folder or find_cache_folder()).expanduser().absolute())
    copies: dict[str, Path] = {}
    jobs = {}
    for number, (case_id, path) in enumerate(files):
        known = _recall_file(path, settings, cache)
        if isinstance(known, Path):
            copies[case_id] = known
        else:
            jobs[number] = (path, settings, cache)
    if jobs:
        cache.remove_old_parts()
    issues = []
    done = len(files) - len(jobs)
    if progress is not None:
        progress(done, len(files))
    for number, made in run_jobs(_build, jobs, workers=workers):
        case_id, path = files[number]
        done += 1
        if isinstance(made, Path):
            copies[case_id] = made
        else:
            message = f"{path}: {made.reason}"
            issues.append(Issue(case_id=case_id, path=path, kind=made.kind, message=message))
        if progress is not None:
            progress(done, len(files))
    return copies, sorted(issues, key=lambda issue: issue.case_id)


def _recall_file(path: Path, settings: ImageSettings, cache: CacheFolder) -> Path | None:
    """Find a copy without opening the file."""
    try:
        sha256 = cache.load_cached_sha256(path.absolute(), FileStamp.of(path))
    except OSError:
        return None
    return None if sha256 is None else _load_cached(_make_key(path, sha256, settings), cache)


def _load_cached(key: str, cache: CacheFolder) -> Path | None:
    record = cache.read_record(key)
    if not record:
        return None
    copy = cache.array_path(key, _NAME)
    sound = is_sound(copy, shape=tuple(record["shape"]), dtype=record["dtype"])
    return copy if sound else None


def _build(path: Path, settings: ImageSettings, cache: CacheFolder) -> Path | _Refusal:
    try:
        stamp = FileStamp.of(path)
        key = _make_key(path, hash_original(path, cache), settings)
        known = _load_cached(key, cache)
        if known is not None:
            return known
        pixels = read_image(path, channels=settings.channels, max_pixels=settings.max_pixels)
        if FileStamp.of(path) != stamp:
            return _Refusal("changing", "it changed while it was read")
    except OSError as error:
        return _Refusal("image-unreadable", f"cannot be read ({error.strerror or error})")
    except ReadError as error:
        return _Refusal("image-unreadable", error.reason)
    if pixels.kind != "image":
        return _Refusal("not-a-image", "it is a volume where a image is expected")
    image = pixels.array
    if image.dtype not in (np.uint8, np.uint16):
        image = image.astype(np.float32)
    height, width = image.shape[:2]
    copy = resize_image(image, reduce_size((height, width), settings.side))
    cache.write_array(key, _NAME, copy)
    cache.write_record(key, {"shape": copy.shape, "dtype": copy.dtype.name})
    built = _load_cached(key, cache)
    if built is None:
        raise WriteError(f"{cache.root}: a copy just written cannot be read back; check the disk")
    return built


def _make_key(path: Path, sha256: str, settings: ImageSettings) -> str:
    # With the ending, because readers choose the decoder by it.
    text = json.dumps(["image", sha256, path.suffix.lower(), asdict(settings)])
    return hashlib.sha256(text.encode()).hexdigest()

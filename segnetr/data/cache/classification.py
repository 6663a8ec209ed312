"""Decoded, downsampled copies of images without masks. For pairs, see `segmentation.py`."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from segnetr.data.cache.arrays import CachedArray, compute_checksums
from segnetr.data.cache.store import CacheFolder, FileStamp, hash_cached_file, is_intact, run_jobs
from segnetr.data.preprocessing.resize import reduce_size, resize_image
from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS
from segnetr.data.readers.read_files import read_image
from segnetr.data.validation.audit import Issue
from segnetr.errors import ReadError, WriteError

_NAME = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSettings:
    """Settings that a copy depends on, in addition to the content of its file.

    Attributes:
        side: Length of the copy's shorter side in pixels. Smaller images are not enlarged.
        channels: Channels of the images.
        max_pixels: Larger images are refused.
    """

    side: int
    channels: int
    max_pixels: int = DEFAULT_MAX_PIXELS


@dataclass(frozen=True, slots=True)
class ImageFileSource:
    """A file and how it was decoded, to build a damaged copy again.

    Attributes:
        path: The file.
        hashes: Its sha256.
        settings: Settings of the copy.
        cache: The cache folder.
    """

    path: Path
    hashes: tuple[str, ...]
    settings: ImageSettings
    cache: CacheFolder

    def rebuild(self) -> None:
        """Decode the file again and replace the copy.

        Raises:
            ReadError: If the file was changed, or cannot be read any more.
            WriteError: If the cache cannot be written.
        """
        result = _build(self.path, self.settings, self.cache, reuse=False)
        if isinstance(result, _ImageIssue):
            raise ReadError(self.path, result.reason)
        if (hash_cached_file(self.path, self.cache),) != self.hashes:
            raise ReadError(self.path, "it was changed while it was in use")


@dataclass(frozen=True, slots=True)
class _ImageIssue:
    """Why a file has no copy."""

    kind: str
    reason: str


def cache_images(
    files: Sequence[tuple[str, Path]],
    settings: ImageSettings,
    *,
    folder: Path | None,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, CachedArray], list[Issue]]:
    """Find the existing copies of images and build the missing ones.

    Args:
        files: Case ids with their files.
        settings: Size, channels and limits.
        folder: Cache folder. None: the user's cache folder.
        workers: Decoding processes. With 0 or 1, this process decodes.
        progress: Called with (finished files, all files) repeatedly, and at the end.

    Returns:
        The copy of each valid file by case id, an array (h, w, C), and the issues of the others.

    Raises:
        WriteError: If the folder cannot be written.
        SegNetrError: If a decoding process was killed.
    """
    cache = CacheFolder.open(folder)
    copies: dict[str, CachedArray] = {}
    jobs = {}
    for number, (case_id, path) in enumerate(files):
        known = _find_copy(path, settings, cache)
        if isinstance(known, CachedArray):
            copies[case_id] = known
        else:
            jobs[number] = (path, settings, cache)
    if jobs:
        cache.remove_old_parts()
    issues = []
    done = len(files) - len(jobs)
    if progress is not None:
        progress(done, len(files))
    for number, result in run_jobs(_build, jobs, workers=workers):
        case_id, path = files[number]
        done += 1
        if isinstance(result, CachedArray):
            copies[case_id] = result
        else:
            message = f"{path}: {result.reason}"
            issues.append(Issue(case_id=case_id, path=path, kind=result.kind, message=message))
        if progress is not None:
            progress(done, len(files))
    return copies, sorted(issues, key=lambda issue: issue.case_id)


def _find_copy(path: Path, settings: ImageSettings, cache: CacheFolder) -> CachedArray | None:
    """Look up a copy without opening the file."""
    sha256 = cache.load_sha256(path)
    return None if sha256 is None else _load_record(path, sha256, settings, cache)


def _load_record(
    path: Path, sha256: str, settings: ImageSettings, cache: CacheFolder
) -> CachedArray | None:
    key = _make_key(path, sha256, settings)
    record = cache.read_record(key)
    try:
        shape, dtype, checksums = tuple(record["shape"]), record["dtype"], tuple(record["crc32"])
    except (KeyError, TypeError):  # no record, or one of an earlier version
        return None
    copy = cache.array_path(key, _NAME)
    if not is_intact(copy, shape=shape, dtype=dtype):
        return None
    return CachedArray(copy, checksums, ImageFileSource(path, (sha256,), settings, cache))


def _build(
    path: Path, settings: ImageSettings, cache: CacheFolder, *, reuse: bool = True
) -> CachedArray | _ImageIssue:
    try:
        stamp = FileStamp.of(path)
        sha256 = hash_cached_file(path, cache)
        known = _load_record(path, sha256, settings, cache) if reuse else None
        if known is not None:
            return known
        pixels = read_image(path, channels=settings.channels, max_pixels=settings.max_pixels)
        if FileStamp.of(path) != stamp:
            return _ImageIssue("changing", "it changed while it was read")
    except OSError as error:
        return _ImageIssue("image-unreadable", f"cannot be read ({error.strerror or error})")
    except ReadError as error:
        return _ImageIssue("image-unreadable", error.reason)
    if pixels.kind != "image":
        return _ImageIssue("not-an-image", "it is a volume; an image is expected")
    image = pixels.array
    if image.dtype not in (np.uint8, np.uint16):
        image = image.astype(np.float32)
    height, width = image.shape[:2]
    copy = resize_image(image, reduce_size((height, width), settings.side))
    key = _make_key(path, sha256, settings)
    cache.write_array(key, _NAME, copy)
    crc32 = compute_checksums(copy, by_slice=False)
    cache.write_record(key, {"shape": copy.shape, "dtype": copy.dtype.name, "crc32": crc32})
    built = _load_record(path, sha256, settings, cache)
    if built is None:
        raise WriteError(f"{cache.root}: a new copy cannot be read back; check the disk")
    return built


def _make_key(path: Path, sha256: str, settings: ImageSettings) -> str:
    # Includes the suffix, because the readers choose the decoder by it.
    text = json.dumps(["image", sha256, path.suffix.lower(), asdict(settings)])
    return hashlib.sha256(text.encode()).hexdigest()

"""Decoded, downsampled copies of images and masks, built once and stored on disk.

Decoding is the bottleneck of dermoscopy data, whose images are up to 6700 pixels wide. A copy is
identified by the content of the original files and by the settings, so moved, renamed and shared
files are not decoded again, and changed ones are. Issues are stored in the same way.

Decoding processes import this module, so it must not import torch or MONAI.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segnetr.data.cache.arrays import CachedArray, compute_checksums
from segnetr.data.cache.store import CacheFolder, FileStamp, hash_cached_file, is_intact, run_jobs
from segnetr.data.cache.volumes import VolumeSettings, make_slice_copies
from segnetr.data.case import Case
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
from segnetr.data.validation.audit import Issue, describe_no_foreground
from segnetr.data.validation.case_check import compare_grids
from segnetr.errors import ReadError, WriteError

_Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """Settings that a cached copy depends on, in addition to the content of its files.

    Attributes:
        side: Length of the copy's shorter side in pixels. Smaller images are not enlarged.
        channels: Channels of the images.
        classes: Number of classes of the masks.
        values: Mask values of each class. None: see `read_mask_file`.
        max_pixels: Larger images are refused.
        volume: How volumes are sliced. None: the images are 2-D.
    """

    side: int
    channels: int
    classes: int
    values: ClassValues | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    volume: VolumeSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedCase:
    """A case that is ready for loading.

    Attributes:
        case_id: As in the dataset.
        image: .npy file (h, w, C), uint8 or uint16, or float32 if the original has fractions. For
            volumes (D, h, w, C) uint16, slice by slice.
        mask: .npy file (h, w) uint8 class indices. For volumes (D, h, w).
        original_size: (height, width) of the original image in pixels, (X, Y, Z) of a volume.
        has_foreground: For volumes: whether each slice has foreground.
        hashes: sha256 of the image file and of each mask file.
    """

    case_id: str
    image: CachedArray | Path
    mask: CachedArray | Path
    original_size: tuple[int, ...]
    has_foreground: tuple[bool, ...] = ()
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheResult:
    """Result of building the cache.

    Attributes:
        entries: The valid cases by id, in input order. Empty if no mask has foreground.
        issues: One for each invalid case, in input order, and one if no mask has foreground.
    """

    entries: dict[str, CachedCase]
    issues: list[Issue]


@dataclass(frozen=True, slots=True)
class PairCopies:
    """The stored copies of a valid pair of image and mask.

    Attributes:
        key: Key in the cache folder.
        original_size: (height, width) of the original image in pixels, (X, Y, Z) of a volume.
        classes: Indices of the classes in the original mask.
        checksums: Of the copy of the image and of the mask, see `compute_checksums`.
        has_foreground: For volumes: whether each slice has foreground.
        hashes: sha256 of the image file and of each mask file.
    """

    key: str
    original_size: tuple[int, ...]
    classes: tuple[int, ...]
    checksums: tuple[tuple[int, ...], tuple[int, ...]]
    has_foreground: tuple[bool, ...] = ()
    hashes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PairSource:
    """The files of a pair and how they were decoded, to build damaged copies again.

    Attributes:
        image: The image file.
        masks: The mask files.
        hashes: sha256 of the image file and of each mask file.
        settings: The settings of the copies.
        cache: The cache folder.
    """

    image: Path
    masks: tuple[Path, ...]
    hashes: tuple[str, ...]
    settings: CacheSettings
    cache: CacheFolder

    def rebuild(self) -> None:
        """Decode the files again and replace the copies.

        Raises:
            ReadError: If the files were changed, or cannot be read any more.
            WriteError: If the cache cannot be written.
        """
        result = build_pair(self.image, self.masks, self.settings, self.cache, reuse=False)
        if isinstance(result, PairIssue):
            raise ReadError(self.image, result.reason)
        if result.hashes != self.hashes:
            raise ReadError(self.image, "it or its mask was changed while it was in use")


@dataclass(frozen=True, slots=True)
class PairIssue:
    """An issue of a pair, without file names, since they may change while the content does not.

    Attributes:
        file: Whether the image or the mask has the issue.
        kind: A code of `segnetr.data.validation.audit`, or "changing".
        reason: The message after the file name.
        mask_index: Index of the mask file.
    """

    file: Literal["image", "mask"]
    kind: str
    reason: str
    mask_index: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _DecodedPair:
    """The arrays of a valid pair before they are stored. See `PairCopies`."""

    image: Array
    mask: Array
    original_size: tuple[int, ...]
    classes: tuple[int, ...]
    has_foreground: tuple[bool, ...] = ()


_Job = tuple[Path, tuple[Path, ...], CacheSettings, CacheFolder]


def build_cache(
    cases: Sequence[Case],
    settings: CacheSettings,
    *,
    folder: Path | None,
    workers: int,
    progress: _Report | None = None,
) -> CacheResult:
    """Find the existing copies of cases and build the missing ones.

    Args:
        cases: Cases with masks.
        settings: Size, channels, classes and limits.
        folder: Cache folder. None: the user's cache folder.
        workers: Decoding processes. With 0 or 1, this process decodes.
        progress: Called with (finished cases, all cases) repeatedly, and at the end.

    Returns:
        The copies, and the issues of the cases that have none.

    Raises:
        WriteError: If the folder cannot be written (read-only, full).
        SegNetrError: If a decoding process was killed.
    """
    cache = CacheFolder.open(folder)
    outcomes: dict[int, CachedCase | Issue] = {}
    has_foreground = False
    jobs: dict[int, _Job] = {}

    def add(row: int, result: PairCopies | PairIssue) -> None:
        nonlocal has_foreground
        outcomes[row] = _to_outcome(cases[row], result, settings, cache)
        has_foreground |= isinstance(result, PairCopies) and any(result.classes)

    for row, case in enumerate(cases):
        if case.mask is None:
            add(row, PairIssue("image", "mask-missing", "it has no mask"))
            continue
        known = load_cached_pair(case.image, case.mask_files, settings=settings, cache=cache)
        if known is None:
            jobs[row] = (case.image, case.mask_files, settings, cache)
        else:
            add(row, known)
    report = progress or (lambda _done, _total: None)
    report(len(outcomes), len(cases))
    if jobs:
        cache.remove_old_parts()
    for row, result in run_jobs(build_pair, jobs, workers=workers):
        add(row, result)
        report(len(outcomes), len(cases))
    ordered = [outcomes[row] for row in range(len(cases))]
    entries = {entry.case_id: entry for entry in ordered if isinstance(entry, CachedCase)}
    issues = [issue for issue in ordered if isinstance(issue, Issue)]
    if entries and not has_foreground:
        first = next(case for case in cases if case.case_id in entries)
        issues.append(describe_no_foreground(first, len(entries)))
        entries = {}
    return CacheResult(entries=entries, issues=issues)


def _to_outcome(
    case: Case, result: PairCopies | PairIssue, settings: CacheSettings, cache: CacheFolder
) -> CachedCase | Issue:
    if isinstance(result, PairCopies):
        source = PairSource(case.image, case.mask_files, result.hashes, settings, cache)
        image, mask = (
            CachedArray(cache.array_path(result.key, name), checksums, source)
            for name, checksums in zip(("image", "mask"), result.checksums, strict=True)
        )
        return CachedCase(
            case_id=case.case_id,
            image=image,
            mask=mask,
            original_size=result.original_size,
            has_foreground=result.has_foreground,
            hashes=result.hashes,
        )
    path = case.mask_files[result.mask_index] if result.file == "mask" else case.image
    message = f"{path}: {result.reason}"
    return Issue(case_id=case.case_id, path=path, kind=result.kind, message=message)


def load_cached_pair(
    image: Path, masks: Sequence[Path], *, settings: CacheSettings, cache: CacheFolder
) -> PairCopies | PairIssue | None:
    """Look up a pair without opening its files. Return None if it has to be built."""
    paths = (image, *masks)
    hashes = [cache.load_sha256(path) for path in paths]
    known = [sha256 for sha256 in hashes if sha256 is not None]
    if len(known) < len(hashes):
        return None
    return _load_record(_make_key(paths, known, settings), known, cache)


def build_pair(
    image: Path,
    masks: Sequence[Path],
    settings: CacheSettings,
    cache: CacheFolder,
    *,
    reuse: bool = True,
) -> PairCopies | PairIssue:
    """Read, check, downsample and store a pair. Only results that its bytes determine are stored.

    Args:
        image: The image file.
        masks: The mask files.
        settings: Settings of the copies.
        cache: The cache folder.
        reuse: Use copies that another process has just built.

    Raises:
        WriteError: If the cache cannot be written.
    """
    paths = (image, *masks)
    try:
        stamps = [FileStamp.of(path) for path in paths]
        hashes = [hash_cached_file(path, cache) for path in paths]
        key = _make_key(paths, hashes, settings)
        known = _load_record(key, hashes, cache) if reuse else None
        if known is not None:
            return known
        decoded = _decode(image, masks, settings)
        if [FileStamp.of(path) for path in paths] != stamps:
            return PairIssue("image", "changing", "it or its mask changed while it was read")
    except OSError as error:
        return _describe_os_error(error, masks)
    if isinstance(decoded, PairIssue):
        cache.write_record(key, {"issue": asdict(decoded)})
        return decoded
    _store(decoded, cache, key)
    built = _load_record(key, hashes, cache)
    if built is None:
        raise WriteError(f"{cache.root}: a new copy cannot be read back; check the disk")
    return built


def _load_record(
    key: str, hashes: Sequence[str], cache: CacheFolder
) -> PairCopies | PairIssue | None:
    record = cache.read_record(key)
    try:
        if "issue" in record:
            return PairIssue(**record["issue"])
        for name in ("image", "mask"):
            shape, dtype = tuple(record[name]["shape"]), record[name]["dtype"]
            if not is_intact(cache.array_path(key, name), shape=shape, dtype=dtype):
                return None
        return PairCopies(
            key,
            original_size=tuple(record["original_size"]),
            classes=tuple(record["classes"]),
            checksums=(tuple(record["image"]["crc32"]), tuple(record["mask"]["crc32"])),
            has_foreground=tuple(record["has_foreground"]),
            hashes=tuple(hashes),
        )
    except (KeyError, TypeError):  # no record, or one of another version
        return None


def _decode(
    image: Path, masks: Sequence[Path], settings: CacheSettings
) -> _DecodedPair | PairIssue:
    """Read and downsample a pair, or describe its issue."""
    try:
        if settings.volume is not None:
            return _decode_volume(image, masks, settings, settings.volume)
        return _decode_image(image, masks, settings)
    except ReadError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from error  # an issue of the disk, not of the file: not stored
        return _describe_read_error(error, masks)


def _decode_volume(
    image: Path, masks: Sequence[Path], settings: CacheSettings, volume_settings: VolumeSettings
) -> _DecodedPair | PairIssue:
    volume = read_image(image, volume_channels=settings.channels, max_pixels=settings.max_pixels)
    if volume.kind != "volume":
        return PairIssue("image", "not-a-volume", "it is an image; a volume is expected")
    ground_truth = _read_masks(masks, settings)
    mismatch = compare_grids(volume, ground_truth)
    if mismatch is not None:
        return PairIssue("mask", *mismatch)
    copies = make_slice_copies(volume, ground_truth, volume_settings, side=settings.side)
    classes = _find_classes(ground_truth)
    return _DecodedPair(copies.image, copies.mask, volume.grid, classes, copies.has_foreground)


def _decode_image(
    image: Path, masks: Sequence[Path], settings: CacheSettings
) -> _DecodedPair | PairIssue:
    pixels = read_image(image, channels=settings.channels, max_pixels=settings.max_pixels)
    if pixels.kind != "image":
        return PairIssue("image", "not-an-image", "it is a volume; an image is expected")
    ground_truth = _read_masks(masks, settings)
    labels = ground_truth.array
    height, width = pixels.array.shape[:2]
    if labels.shape != (height, width):
        mask_size = " x ".join(map(str, labels.shape))
        reason = (
            f"the mask is {mask_size}, but its image {image.name} is {height} x {width}; "
            "leave the case out or correct the mask"
        )
        return PairIssue("mask", "size-mismatch", reason)
    size = reduce_size((height, width), settings.side)
    array = pixels.array
    if array.dtype not in (np.uint8, np.uint16):
        array = array.astype(np.float32)
    copies = resize_image(array, size), resize_mask(labels, size)
    return _DecodedPair(*copies, (height, width), _find_classes(ground_truth))


def _read_masks(masks: Sequence[Path], settings: CacheSettings) -> MaskFile:
    return read_ground_truth(
        masks, classes=settings.classes, values=settings.values, max_pixels=settings.max_pixels
    )


def _find_classes(ground_truth: MaskFile) -> tuple[int, ...]:
    return tuple(find_values(ground_truth.array).tolist())


def _describe_read_error(error: ReadError, masks: Sequence[Path]) -> PairIssue:
    kinds: dict[type[ReadError], str] = {
        MaskValuesError: "mask-values",
        MaskSizeError: "size-mismatch",
    }
    if error.path in masks:
        kind = kinds.get(type(error), "mask-unreadable")
        return PairIssue("mask", kind, error.reason, masks.index(error.path))
    return PairIssue("image", "image-unreadable", error.reason)


def _describe_os_error(error: OSError, masks: Sequence[Path]) -> PairIssue:
    names = [str(mask) for mask in masks]
    file: Literal["image", "mask"] = "mask" if error.filename in names else "image"
    index = names.index(error.filename) if file == "mask" else 0
    kind = f"{file}-missing" if isinstance(error, FileNotFoundError) else f"{file}-unreadable"
    return PairIssue(file, kind, f"cannot be read ({error.strerror or error})", index)


def _store(decoded: _DecodedPair, cache: CacheFolder, key: str) -> None:
    record: dict[str, Any] = {
        "original_size": list(decoded.original_size),
        "classes": list(decoded.classes),
        "has_foreground": list(decoded.has_foreground),
    }
    for name, array in (("image", decoded.image), ("mask", decoded.mask)):
        cache.write_array(key, name, array)
        record[name] = {
            "shape": array.shape,
            "dtype": array.dtype.name,
            "crc32": compute_checksums(array, by_slice=bool(decoded.has_foreground)),
        }
    cache.write_record(key, record)


def _make_key(paths: Sequence[Path], hashes: Sequence[str], settings: CacheSettings) -> str:
    # Includes the suffixes, because the readers choose the decoder by them.
    suffixes = [path.suffix.lower() for path in paths]
    # Without unset fields, so that a new optional setting does not change existing keys.
    fields = {name: value for name, value in asdict(settings).items() if value is not None}
    text = json.dumps([*hashes, *suffixes, fields])
    return hashlib.sha256(text.encode()).hexdigest()

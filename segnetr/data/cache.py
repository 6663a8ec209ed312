"""Decoded, reduced copies of pictures and masks, made once and kept on disk.

Decoding is the bottleneck of dermoscopy data, whose pictures have up to 6700 pixels a side. A copy
is found by the content of the original files and by the settings, so moved, renamed and shared
files are not decoded again and changed ones are. Faults are remembered in the same way.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segnetr.data.audit import Fault
from segnetr.data.cache_folder import CacheFolder, FileStamp, find_cache_folder, is_sound
from segnetr.data.case import Case
from segnetr.data.readers import read_image, read_mask
from segnetr.data.resize import Array, reduce_size, resize_image, resize_mask
from segnetr.errors import ReadError, SegNetrError, WriteError

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """What a cached copy depends on beside the files.

    Attributes:
        side: Length of the copy's shorter side in pixels; smaller pictures stay as they are.
        channels: Channels of the pictures.
        classes: Number of classes of the masks.
        max_pixels: Larger pictures are refused.
    """

    side: int
    channels: int
    classes: int
    max_pixels: int = 200_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedCase:
    """A case that is ready for loading.

    Attributes:
        case_id: As in the data set.
        image: .npy file, (h, w, C), uint8 or uint16 (float32 where the original has fractions).
        mask: .npy file, (h, w) uint8 class indices.
        original_size: (height, width) of the original picture in pixels.
    """

    case_id: str
    image: Path
    mask: Path
    original_size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheResult:
    """What came of building the cache.

    Attributes:
        entries: The sound cases by id, in the order they were given.
        faults: One for each of the others, in the order they were given.
    """

    entries: dict[str, CachedCase]
    faults: list[Fault]


Outcome = CachedCase | Fault


def build_cache(
    cases: Sequence[Case],
    settings: CacheSettings,
    *,
    folder: Path | None,
    workers: int,
    progress: Progress | None = None,
) -> CacheResult:
    """Make the copies that are missing, and find the others.

    Args:
        cases: Each with a mask.
        settings: Size, channels, classes and limits.
        folder: Where the copies lie; None: the user's cache folder.
        workers: Decoding processes; up to 1 decodes in this process.
        progress: Called with (cases done, all cases) now and then, last with all done.

    Returns:
        Where the copies lie, and what is wrong with the cases that have none.

    Raises:
        WriteError: If the folder cannot be written: read-only, full.
        SegNetrError: If a decoding process was killed.
    """
    cache = CacheFolder((folder or find_cache_folder()).expanduser().absolute())
    outcomes: dict[int, Outcome] = {}
    for place, case in enumerate(cases):
        known = _recall(case, settings, cache)
        if known is not None:
            outcomes[place] = known
    _report(progress, outcomes, cases)
    missing = [place for place in range(len(cases)) if place not in outcomes]
    if missing:
        cache.remove_old_parts()
    jobs = {place: (cases[place], settings, cache) for place in missing}
    for place, outcome in _run_jobs(jobs, min(workers, len(jobs))):
        outcomes[place] = outcome
        _report(progress, outcomes, cases)
    ordered = [outcomes[place] for place in range(len(cases))]
    return CacheResult(
        entries={entry.case_id: entry for entry in ordered if isinstance(entry, CachedCase)},
        faults=[fault for fault in ordered if isinstance(fault, Fault)],
    )


Job = tuple[Case, CacheSettings, CacheFolder]


def _report(progress: Progress | None, outcomes: dict[int, Outcome], cases: Sequence[Case]) -> None:
    if progress is not None:
        progress(len(outcomes), len(cases))


def _run_jobs(jobs: dict[int, Job], workers: int) -> Iterator[tuple[int, Outcome]]:
    if workers <= 1:
        for place, job in jobs.items():
            yield place, _build(*job)
        return
    executor = ProcessPoolExecutor(max_workers=workers, initializer=_start_worker)
    try:
        places = {executor.submit(_build, *job): place for place, job in jobs.items()}
        for future in as_completed(places):
            yield places[future], future.result()
    except BrokenProcessPool as error:
        raise SegNetrError(
            "a decoding process was killed, perhaps for want of memory; start again with fewer "
            "--workers, what is done is kept"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(0)  # OpenCV's threads do not survive a fork, and the cores are taken
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End this process when its parent is killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _recall(case: Case, settings: CacheSettings, cache: CacheFolder) -> Outcome | None:
    """Find a case without opening its files; None where it has to be built."""
    if case.mask is None:
        return None
    hashes = []
    for path in (case.image, case.mask):
        try:
            sha256 = cache.recall_sha256(path.absolute(), FileStamp.of(path))
        except OSError:
            return None
        if sha256 is None:
            return None
        hashes.append(sha256)
    return _recall_by_key(case, _make_key(case, hashes, settings), cache)


def _recall_by_key(case: Case, key: str, cache: CacheFolder) -> Outcome | None:
    record = cache.read_record(key)
    if "fault" in record:
        return _make_fault(case, _FaultFacts(**record["fault"]))
    if not record:
        return None
    for name in ("image", "mask"):
        shape, dtype = tuple(record[name]["shape"]), record[name]["dtype"]
        if not is_sound(cache.array_path(key, name), shape=shape, dtype=dtype):
            return None
    height, width = record["original_size"]
    return CachedCase(
        case_id=case.case_id,
        image=cache.array_path(key, "image"),
        mask=cache.array_path(key, "mask"),
        original_size=(height, width),
    )


def _build(case: Case, settings: CacheSettings, cache: CacheFolder) -> Outcome:
    """Read, check, reduce and write one case; only what its bytes decide is remembered."""
    if case.mask is None:
        return _make_fault(case, _FaultFacts("image", "mask-missing", "has no mask"))
    paths = (case.image, case.mask)
    try:
        stamps = [FileStamp.of(path) for path in paths]
        hashes = [_hash_file(path, cache) for path in paths]
        key = _make_key(case, hashes, settings)
        known = _recall_by_key(case, key, cache)
        if known is not None:
            return known
        decoded = _decode(case.image, case.mask, settings)
        if [FileStamp.of(path) for path in paths] != stamps:
            return _make_fault(case, _FaultFacts("image", "changing", "changed while it was read"))
    except OSError as error:
        of = "mask" if error.filename == str(case.mask) else "image"
        reason = f"cannot be read ({error.strerror or error})"
        return _make_fault(case, _FaultFacts(of, "unreadable", reason))
    if isinstance(decoded, _FaultFacts):
        cache.write_record(key, {"fault": asdict(decoded)})
        return _make_fault(case, decoded)
    _store(decoded, settings, cache, key)
    built = _recall_by_key(case, key, cache)
    if built is None:
        raise WriteError(f"{cache.root}: a copy just written cannot be read back; check the disk")
    return built


def _decode(
    image: Path, mask: Path, settings: CacheSettings
) -> "tuple[Array, Array] | _FaultFacts":
    limit = settings.max_pixels
    try:
        read = read_image(image, channels=settings.channels, max_pixels=limit)
        if read.kind != "picture":
            return _FaultFacts("image", "not-a-picture", "is a volume, a picture was expected")
        labels = read_mask(mask, classes=settings.classes, max_pixels=limit)
    except ReadError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from error  # the disk's fault, not the file's: not to be remembered
        return _FaultFacts("mask" if error.path == mask else "image", "unreadable", error.reason)
    if labels.shape != read.array.shape[:2]:
        (height, width), (rows, columns) = read.array.shape[:2], labels.shape
        reason = f"has {columns}x{rows} pixels, its image {width}x{height}"
        return _FaultFacts("mask", "size-mismatch", reason)
    return read.array, labels


def _store(
    decoded: tuple[Array, Array], settings: CacheSettings, cache: CacheFolder, key: str
) -> None:
    image, mask = decoded
    height, width = mask.shape
    size = reduce_size((height, width), settings.side)
    if image.dtype not in (np.uint8, np.uint16):
        image = image.astype(np.float32)
    copies = {"image": resize_image(image, size), "mask": resize_mask(mask, size)}
    record: dict[str, Any] = {"original_size": [height, width]}
    for name, array in copies.items():
        cache.write_array(key, name, array)
        record[name] = {"shape": array.shape, "dtype": array.dtype.name}
    cache.write_record(key, record)


def _hash_file(path: Path, cache: CacheFolder) -> str:
    stamp = FileStamp.of(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    cache.remember_sha256(path.absolute(), stamp, sha256)
    return sha256


def _make_key(case: Case, hashes: Sequence[str], settings: CacheSettings) -> str:
    # With the endings, because readers choose the decoder by them.
    endings = [path.suffix.lower() for path in (case.image, case.mask) if path is not None]
    text = json.dumps([*hashes, *endings, asdict(settings)])
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _FaultFacts:
    """A fault without the names, which may change while the bytes do not."""

    of: str
    kind: str
    reason: str


def _make_fault(case: Case, facts: _FaultFacts) -> Fault:
    path = case.mask if facts.of == "mask" and case.mask is not None else case.image
    return Fault(
        case_id=case.case_id, path=path, kind=facts.kind, message=f"{path}: {facts.reason}"
    )

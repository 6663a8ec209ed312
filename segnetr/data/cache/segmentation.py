"""Decoded, reduced copies of images and masks, made once and kept on disk.

Decoding is the bottleneck of dermoscopy data, whose images have up to 6700 pixels a side. A copy
is found by the content of the original files and by the settings, so moved, renamed and shared
files are not decoded again and changed ones are. Issues are remembered in the same way.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from segnetr.data.cache.pairs import (
    CacheSettings,
    Finding,
    PairCopies,
    build_pair,
    load_cached_pair,
    start_worker,
)
from segnetr.data.cache.store import CacheFolder, find_cache_folder
from segnetr.data.case import Case
from segnetr.data.validation.audit import Issue, describe_no_foreground
from segnetr.errors import SegNetrError

__all__ = ["CacheResult", "CacheSettings", "CachedCase", "build_cache"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedCase:
    """A case that is ready for loading.

    Attributes:
        case_id: As in the data set.
        image: .npy file, (h, w, C), uint8 or uint16 (float32 where the original has fractions);
            of a volume (D, h, w, C) uint16, slice by slice.
        mask: .npy file, (h, w) uint8 class indices; of a volume (D, h, w).
        original_size: (height, width) of the original image in pixels, (X, Y, Z) of a volume.
        filled: Of a volume: whether each of its slices has foreground.
    """

    case_id: str
    image: Path
    mask: Path
    original_size: tuple[int, ...]
    has_foreground: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheResult:
    """What came of building the cache.

    Attributes:
        entries: The sound cases by id, in the order they were given; none where no mask of any
            shows an object.
        issues: One for each of the others, in the order they were given; one for all where no mask
            shows an object.
    """

    entries: dict[str, CachedCase]
    issues: list[Issue]


Outcome = CachedCase | Issue
Job = tuple[Path, tuple[Path, ...], CacheSettings, CacheFolder]
Made = TypeVar("Made")


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
    shown: set[int] = set()
    jobs: dict[int, Job] = {}
    for place, case in enumerate(cases):
        if case.mask is None:
            missing_mask = Finding("image", "mask-missing", "it has no mask")
            outcomes[place] = _describe(case, missing_mask, cache)
            continue
        known = load_cached_pair(case.image, case.mask_files, settings=settings, cache=cache)
        if known is None:
            jobs[place] = (case.image, case.mask_files, settings, cache)
        else:
            outcomes[place] = _describe(case, known, cache)
            shown.update(_classes_of(known))
    _report(progress, outcomes, cases)
    if jobs:
        cache.remove_old_parts()
    for place, made in run_jobs(build_pair, jobs, workers=workers):
        outcomes[place] = _describe(cases[place], made, cache)
        shown.update(_classes_of(made))
        _report(progress, outcomes, cases)
    ordered = [outcomes[place] for place in range(len(cases))]
    entries = {entry.case_id: entry for entry in ordered if isinstance(entry, CachedCase)}
    issues = [issue for issue in ordered if isinstance(issue, Issue)]
    if entries and not any(shown):
        first = next(case for case in cases if case.case_id in entries)
        return CacheResult(
            entries={}, issues=[*issues, describe_no_foreground(first, len(entries))]
        )
    return CacheResult(entries=entries, issues=issues)


def _classes_of(made: PairCopies | Finding) -> tuple[int, ...]:
    return made.classes if isinstance(made, PairCopies) else ()


def _report(progress: Progress | None, outcomes: dict[int, Outcome], cases: Sequence[Case]) -> None:
    if progress is not None:
        progress(len(outcomes), len(cases))


def run_jobs(
    build: Callable[..., Made], jobs: Mapping[int, tuple[Any, ...]], *, workers: int
) -> Iterator[tuple[int, Made]]:
    """Run decoding jobs, and give each one's number with what it made, as they are done.

    Args:
        build: Called with the parts of a job; it can be pickled, as can the jobs.
        jobs: Arguments by number.
        workers: Decoding processes; up to 1 decodes in this process.

    Raises:
        SegNetrError: If a decoding process was killed.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        for place, job in jobs.items():
            yield place, build(*job)
        return
    # spawn: a fork of a process with torch's threads can hang.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker)
    try:
        places = {executor.submit(build, *job): place for place, job in jobs.items()}
        for future in as_completed(places):
            yield places[future], future.result()
    except BrokenProcessPool as error:
        raise SegNetrError(
            "a decoding process was killed, perhaps for want of memory; start again with fewer "
            "--workers, what is done is kept"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _describe(case: Case, made: PairCopies | Finding, cache: CacheFolder) -> Outcome:
    if isinstance(made, PairCopies):
        return CachedCase(
            case_id=case.case_id,
            image=cache.array_path(made.key, "image"),
            mask=cache.array_path(made.key, "mask"),
            original_size=made.original_size,
            has_foreground=made.has_foreground,
        )
    path = case.mask_files[made.place] if made.of == "mask" else case.image
    return Issue(case_id=case.case_id, path=path, kind=made.kind, message=f"{path}: {made.reason}")

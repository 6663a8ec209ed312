"""Can a data set be trusted? Every issue is named before training starts, not in its middle.

The codes of issues: `image-unreadable`, `image-missing` (a mask without its image),
`mask-unreadable`, `mask-missing`, `mask-values`, `size-mismatch`, `grid-mismatch` (a volume's mask
with another affine), `duplicate-id`, `no-foreground` (of all cases: one mask may be empty),
`patient-in-two-parts` (`segnetr.data.splits.patients`) and `duplicate` (one image in
two splits, `segnetr data check`); and when data are decoded for training, `not-a-image` and
`not-a-volume`.
"""

import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segnetr.data.case import Case, DatasetSpec
from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS
from segnetr.data.validation.case_check import NO_FOREGROUND, Finding, check_files
from segnetr.errors import SegNetrError

Check = Callable[[Path, tuple[Path, ...]], list[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One thing that is wrong with one case.

    Attributes:
        case_id: The case.
        path: The file.
        kind: A short code, see the module.
        message: One line that names the file, what was found and the way out.
    """

    case_id: str
    path: Path
    kind: str
    message: str


def check_pairs(cases: Sequence[Case]) -> list[Issue]:
    """Look whether each case has its files and an id of its own, without reading them.

    Returns:
        The issues in the order of the cases.
    """
    counts = Counter(case.case_id for case in cases)
    issues = []
    for case in cases:
        if counts[case.case_id] > 1:
            message = f"{case.image}: {counts[case.case_id]} cases are called {case.case_id!r}"
            issues.append(_issue(case, case.image, "duplicate-id", message))
        issues += _check_presence(case)
    return issues


def _check_presence(case: Case) -> list[Issue]:
    """Look whether the files of a case are there."""
    if not case.image.exists():
        of = "" if case.mask is None else f", the image of the mask {case.mask.name}"
        return [_issue(case, case.image, "image-missing", f"{case.image}: no such file{of}")]
    if case.mask is None:
        expected = case.extra.get("expected_mask")
        advice = f"; expected {expected}" if expected else ""
        message = f"{case.image}: it has no mask{advice}"
        return [_issue(case, case.image, "mask-missing", message)]
    return [
        _issue(case, case.image, "mask-missing", f"{case.image}: its mask {mask} is missing")
        for mask in case.mask_files
        if not mask.exists()
    ]


def check_case(
    case: Case, *, spec: DatasetSpec, max_pixels: int = DEFAULT_MAX_PIXELS
) -> list[Issue]:
    """Read the image and the mask of one case and compare them.

    A mask without foreground is no issue: a image may show nothing.

    Args:
        case: Image and mask; a mask that is None is not missed here, see `check_pairs`.
        spec: The data set, for its classes and their values.
        max_pixels: As in `read_image`.

    Returns:
        The issues, image before mask.
    """
    found = _build_check(spec, max_pixels)(case.image, case.mask_files)
    return [issue for issue in _as_issues(case, found) if issue.kind != NO_FOREGROUND]


def check_cases(
    cases: Sequence[Case],
    spec: DatasetSpec,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Issue]:
    """Check many cases, several at a time.

    Args:
        cases: As in `check_case`.
        spec: As in `check_case`.
        max_pixels: As in `read_image`.
        workers: Processes; 0 checks in this one. A process that is killed (out of memory, say)
            ends nothing: the cases it may have worked on are tried again, each alone, and one that
            kills its process twice more is a issue of its own.
        progress: Called with the number of cases done and of all.

    Returns:
        The issues in the order of the cases; where no mask of all shows anything, one about that.

    Raises:
        SegNetrError: If no worker process can be started.
    """
    found = run_checks(cases, _build_check(spec, max_pixels), workers=workers, progress=progress)
    issues = [issue for issue in found if issue.kind != NO_FOREGROUND]
    empty = [issue for issue in found if issue.kind == NO_FOREGROUND]
    if empty and len(empty) == sum(case.mask is not None for case in cases):
        case = next(case for case in cases if case.case_id == empty[0].case_id)
        issues.append(describe_no_foreground(case, len(empty)))
    return issues


def describe_no_foreground(case: Case, masks: int) -> Issue:
    """Name the issue that none of so many masks shows anything, by one of the cases."""
    path = case.mask or case.image
    message = (
        f"{path}: it shows no object, nor does any other of the {masks} masks; there is nothing to"
        " learn from them: see which values the masks should have"
    )
    return _issue(case, path, "no-foreground", message)


def _build_check(spec: DatasetSpec, max_pixels: int) -> Check:
    return partial(
        check_files,
        classes=len(spec.classes),
        values=spec.mask_values,
        max_pixels=max_pixels,
        volume_channels=spec.volume_channels,
    )


def run_checks(
    cases: Sequence[Case],
    check: Check,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Issue]:
    """Run any check of an image and its mask over many cases; `check_cases` with its own check.

    Args:
        cases: The cases.
        check: A function that can be pickled.
        workers: As in `check_cases`.
        progress: As in `check_cases`.

    Returns:
        The issues in the order of the cases.

    Raises:
        SegNetrError: If no worker process can be started.
    """
    report = progress or _ignore
    found: dict[int, list[Finding]] = {}
    if workers == 0:
        for row, case in enumerate(cases):
            found[row] = check(case.image, case.mask_files)
            report(len(found), len(cases))
    else:
        waiting = deque(range(len(cases)))
        while waiting:
            suspects = _drain(cases, check, waiting, found, workers=workers, report=report)
            for row in suspects:
                found[row] = _check_alone(cases[row], check)
                report(len(found), len(cases))
    return [issue for row, case in enumerate(cases) for issue in _as_issues(case, found[row])]


def _drain(
    cases: Sequence[Case],
    check: Check,
    waiting: deque[int],
    found: dict[int, list[Finding]],
    *,
    workers: int,
    report: Callable[[int, int], None],
) -> list[int]:
    """Check until nothing waits, or a process dies; give the rows that were being checked then."""
    running: dict[Future[list[Finding]], int] = {}
    with _open_pool(workers) as pool:
        try:
            while waiting or running:
                # Few at a time: when a process dies, all that run are suspects.
                while waiting and len(running) < 2 * workers:
                    case = cases[waiting[0]]
                    future = pool.submit(check, case.image, case.mask_files)
                    running[future] = waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    found[running[future]] = future.result()
                    del running[future]
                    report(len(found), len(cases))
        except BrokenProcessPool:
            return sorted(running.values())
    return []


def _check_alone(case: Case, check: Check) -> list[Finding]:
    for _ in range(2):  # the first death may have been somebody else's doing
        with _open_pool(1) as pool:
            try:
                pool.submit(int).result()
            except BrokenProcessPool as error:
                raise SegNetrError(
                    "worker processes cannot be started; --workers 0 does without"
                ) from error
            try:
                return pool.submit(check, case.image, case.mask_files).result()
            except BrokenProcessPool:
                continue
    message = f"{case.image}: the process that read it was killed; is there enough memory?"
    return [Finding("image-unreadable", case.image, message)]


def _open_pool(workers: int) -> ProcessPoolExecutor:
    # spawn: a fork of a process with torch's threads can hang.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _as_issues(case: Case, findings: Sequence[Finding]) -> list[Issue]:
    return [_issue(case, path, kind, message) for kind, path, message in findings]


def _issue(case: Case, path: Path, kind: str, message: str) -> Issue:
    return Issue(case_id=case.case_id, path=path, kind=kind, message=message)


def _ignore(done: int, total: int) -> None:
    """Take a report of progress nobody waits for."""

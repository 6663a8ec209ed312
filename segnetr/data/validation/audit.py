"""Audit of a dataset: report every issue before training starts.

The codes of issues are `image-unreadable`, `image-missing` (a mask without its image),
`mask-unreadable`, `mask-missing`, `mask-values`, `size-mismatch`, `grid-mismatch` (a volume and its
mask have different affines), `duplicate-id`, `no-foreground` (all masks are empty; a single one may
be), `patient-in-two-splits`, and `leak` (one image in two splits, found by `segnetr data check`).
Decoding for training adds `not-an-image` and `not-a-volume`.
"""

import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segnetr.data.case import Case, DatasetSpec, SplitName
from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS
from segnetr.data.validation.case_check import NO_FOREGROUND, FileIssue, check_files
from segnetr.errors import SegNetrError

Check = Callable[[Path, tuple[Path, ...]], list[FileIssue]]

# A case is reported if its patient also has cases in a later one of these splits.
_SPLIT_ORDER: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """An issue of one case.

    Attributes:
        case_id: The case.
        path: The file.
        kind: A code, see the module.
        message: One line that names the file, the problem and the fix.
    """

    case_id: str
    path: Path
    kind: str
    message: str


def check_pairs(cases: Sequence[Case]) -> list[Issue]:
    """Check that the files of each case exist and that ids are unique, without reading files.

    Returns:
        The issues in the order of the cases.
    """
    counts = Counter(case.case_id for case in cases)
    issues = []
    for case in cases:
        if counts[case.case_id] > 1:
            message = f"{case.image}: {counts[case.case_id]} cases have the id {case.case_id!r}"
            issues.append(_issue(case, case.image, "duplicate-id", message))
        issues += _check_presence(case)
    return issues


def _check_presence(case: Case) -> list[Issue]:
    """Check that the files of a case exist."""
    if not case.image.exists():
        owner = "" if case.mask is None else f", the image of the mask {case.mask.name}"
        return [_issue(case, case.image, "image-missing", f"{case.image}: no such file{owner}")]
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


def check_patients(cases: Sequence[Case]) -> list[Issue]:
    """Report cases whose patient also has cases in a later split, which inflates the scores.

    Leaving out the reported cases puts each patient in one split and removes no test case.

    Returns:
        The issues in the order of the cases.
    """
    splits: dict[str, Counter[SplitName]] = {}
    for case in cases:
        if case.patient_id is not None and case.split is not None:
            splits.setdefault(case.patient_id, Counter())[case.split] += 1
    return [
        _describe_patient(case, splits[case.patient_id])
        for case in cases
        if case.patient_id in splits
        and case.split is not None
        and case.split != max(splits[case.patient_id], key=_SPLIT_ORDER.index)
    ]


def _describe_patient(case: Case, counts: Counter[SplitName]) -> Issue:
    others = " and ".join(
        f"{counts[split]} in {split}"
        for split in _SPLIT_ORDER
        if split in counts and split != case.split
    )
    message = (
        f"{case.image}: it is in {case.split}, and its patient {case.patient_id} has {others}; "
        "leave the case out"
    )
    return _issue(case, case.image, "patient-in-two-splits", message)


def check_case(
    case: Case, *, spec: DatasetSpec, max_pixels: int = DEFAULT_MAX_PIXELS
) -> list[Issue]:
    """Read the image and the mask of one case and compare them.

    A mask without foreground is not an issue, since an image may contain no object.

    Args:
        case: Image and mask. A missing mask is not an issue here, see `check_pairs`.
        spec: The dataset, for its classes and mask values.
        max_pixels: As in `read_image`.

    Returns:
        The issues, image before mask.
    """
    issues = _build_check(spec, max_pixels)(case.image, case.mask_files)
    return [issue for issue in _as_issues(case, issues) if issue.kind != NO_FOREGROUND]


def check_cases(
    cases: Sequence[Case],
    spec: DatasetSpec,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Issue]:
    """Check many cases in parallel.

    Args:
        cases: As in `check_case`.
        spec: As in `check_case`.
        max_pixels: As in `read_image`.
        workers: Processes. 0 checks in this process. If a process is killed (for example because
            memory ran out), the check continues: the cases that were running are repeated one by
            one, and a case whose process is killed twice more is an issue.
        progress: Called with (finished cases, all cases).

    Returns:
        The issues in the order of the cases, and one more if no mask has foreground.

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
    """Return the issue that no mask of the dataset has foreground, assigned to one case."""
    path = case.mask or case.image
    message = (
        f"{path}: it has no foreground, and neither has any other of the {masks} masks; check"
        " which values the masks should have"
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
    """Run a check of an image and its mask on many cases, in parallel.

    Args:
        cases: The cases.
        check: A picklable function.
        workers: As in `check_cases`.
        progress: As in `check_cases`.

    Returns:
        The issues in the order of the cases.

    Raises:
        SegNetrError: If no worker process can be started.
    """
    report = progress or _ignore
    found: dict[int, list[FileIssue]] = {}
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
    found: dict[int, list[FileIssue]],
    *,
    workers: int,
    report: Callable[[int, int], None],
) -> list[int]:
    """Check until no case waits or a process dies. Return the rows that were running then."""
    running: dict[Future[list[FileIssue]], int] = {}
    with _open_pool(workers) as pool:
        try:
            while waiting or running:
                # Few at a time, because all running cases are repeated if a process dies.
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


def _check_alone(case: Case, check: Check) -> list[FileIssue]:
    for _ in range(2):  # the first time, another process may have used up the memory
        with _open_pool(1) as pool:
            try:
                pool.submit(int).result()
            except BrokenProcessPool as error:
                raise SegNetrError("worker processes cannot be started; use --workers 0") from error
            try:
                return pool.submit(check, case.image, case.mask_files).result()
            except BrokenProcessPool:
                continue
    message = f"{case.image}: the process that read it was killed, perhaps because memory ran out"
    return [FileIssue("image-unreadable", case.image, message)]


def _open_pool(workers: int) -> ProcessPoolExecutor:
    # spawn, because forking a process with torch's threads can hang.
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _as_issues(case: Case, issues: Sequence[FileIssue]) -> list[Issue]:
    return [_issue(case, path, kind, message) for kind, path, message in issues]


def _issue(case: Case, path: Path, kind: str, message: str) -> Issue:
    return Issue(case_id=case.case_id, path=path, kind=kind, message=message)


def _ignore(done: int, total: int) -> None:
    """Ignore progress."""

"""Find cases that a run has seen, and name evaluations by the data they are made on."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from segnetr.data.cache.store import CacheFolder
from segnetr.data.case import Case
from segnetr.data.splits.content import CaseContent, read_content
from segnetr.data.splits.split import read_split
from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import ReadError
from segnetr.storage.manifest import hash_file
from segnetr.workflows.evaluation.scored_cases import CaseType, ScoredCases

_UNSAFE = re.compile(r"[^\w.-]+")


def mark_seen(
    run: RunDir, selected: ScoredCases[CaseType], content: CaseContent, *, name: str, root: Path
) -> ScoredCases[CaseType]:
    """Add to cases of another dataset how many the run was trained or validated on.

    A case counts as seen if its id or its image file equals that of a case of the run. Runs of
    version 0.1 have no hashes, so that their cases are compared by id only.

    Args:
        run: The run.
        selected: The cases.
        content: Their hashes.
        name: Name of the dataset.
        root: Its folder.

    Returns:
        The cases with the number in their title, and with a folder whose name contains the dataset,
        its folder and the content.

    Raises:
        DataError: If the hashes of the run are damaged.
    """
    split = read_split(run.splits)
    ids = {*split.train, *split.validation}
    known = read_content(run.content)
    images = set() if known is None else {h[0] for i, h in known.hashes.items() if i in ids}
    seen = sum(
        case_id in ids or bool(images.intersection(hashes[:1]))
        for case_id, hashes in content.hashes.items()
    )
    place = _UNSAFE.sub("_", root.resolve().name)[:60]
    folder = run.path / f"evaluation-{name}-{place}-{content.sha256[:8]}"
    title = selected.title
    if seen:
        title += (
            f"; NOT A TEST SCORE: the run was trained or validated on {seen} of these "
            f"{len(selected.cases)} cases"
        )
    return replace(selected, title=title, folder=folder, seen=seen)


def hash_case_files(cases: Iterable[Case], *, cache_dir: Path | None) -> CaseContent:
    """Return the hashes of the files of cases. The cache folder is read, but never written.

    Raises:
        ReadError: If a file cannot be read.
    """
    cache = CacheFolder.open(cache_dir)
    return CaseContent(
        {
            case.case_id: tuple(_hash_file(path, cache) for path in (case.image, *case.mask_files))
            for case in cases
        }
    )


def _hash_file(path: Path, cache: CacheFolder) -> str:
    try:
        return cache.load_sha256(path) or hash_file(path)
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror or error})") from error

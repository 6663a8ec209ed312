"""Select the cases that `segnetr evaluate` scores, for segmentation and for classification."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from segnetr.data.splits.split import read_split
from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import UsageError


class _Case(Protocol):
    @property
    def case_id(self) -> str: ...

    @property
    def split(self) -> str | None: ...


CaseType = TypeVar("CaseType", bound=_Case)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCases(Generic[CaseType]):
    """Cases to score.

    Attributes:
        cases: The cases.
        title: The cases in words.
        folder: Default folder of the scores.
        seen: Number of cases of another dataset that the run was trained or validated on.
    """

    cases: list[CaseType]
    title: str
    folder: Path
    seen: int = 0


def select_own_cases(
    run: RunDir,
    cases: Iterable[CaseType],
    split: str | None,
    *,
    dataset: str,
    root: Path | None,
    is_default: bool,
) -> ScoredCases[CaseType]:
    """Select the cases of a split of the run's own dataset.

    Args:
        run: The run.
        cases: All cases of the dataset.
        split: The split to score; None: the run has no case to score.
        dataset: Title of the dataset.
        root: Folder of the dataset, for messages.
        is_default: The user did not choose the split.

    Raises:
        UsageError: If there is no case to score, or cases of the split are missing.
    """
    if split is None:
        raise UsageError(
            f"{run.path}: every case was trained on; add --dataset with another dataset"
        )
    wanted = set(read_split(run.splits).ids(split))  # type: ignore[arg-type]
    selected = [case for case in cases if case.case_id in wanted]
    if len(selected) != len(wanted):
        raise UsageError(f"{root}: {len(wanted) - len(selected)} cases of the split are missing")
    return ScoredCases(
        cases=selected,
        title=f"{dataset}, {split} split, {len(selected)} cases",
        folder=run.path / ("evaluation" if is_default else f"evaluation-{split}"),
    )


def select_other_cases(
    run: RunDir,
    cases: Iterable[CaseType],
    split: str | None,
    *,
    name: str,
    dataset: str,
    root: Path | None,
) -> ScoredCases[CaseType]:
    """Select the cases of another dataset.

    Args:
        run: The run.
        cases: All cases of the dataset that can be scored.
        split: An official split of the dataset; None: all cases.
        name: Name of the dataset.
        dataset: Title of the dataset.
        root: Folder of the dataset, for messages.

    Raises:
        UsageError: If there is no such case.
    """
    selected = [case for case in cases if split in (None, case.split)]
    if not selected:
        raise UsageError(
            f"{root}: no case to score" + (f" in the split {split!r}" if split else "")
        )
    words = f", {split} split" if split else ""
    return ScoredCases(
        cases=selected,
        title=f"{dataset}{words}, {len(selected)} cases",
        folder=run.path / f"evaluation-{name}",
    )

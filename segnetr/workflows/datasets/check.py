"""`segnetr data check` and `segnetr data split`: the issues of a dataset, and its split."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segnetr.config.schema.segmentation import DataConfig
from segnetr.data.case import SPLIT_NAMES, Split
from segnetr.data.splits.split import write_split
from segnetr.data.splits.split_cases import divide
from segnetr.data.validation.audit import Issue, check_cases, check_pairs, check_patients
from segnetr.progress import Progress
from segnetr.workflows.datasets.audit import Duplicate, compare_files, list_dataset_images
from segnetr.workflows.datasets.loading import open_dataset
from segnetr.workflows.datasets.page import write_data_page


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """Result of a check.

    Attributes:
        dataset: Name of the dataset.
        root: Folder of the dataset.
        cases: Number of cases.
        issues: The issues, one for each case or pair.
        duplicates: Number of duplicate pairs within one split, which are not issues.
        page: The HTML page, if one was written.
    """

    dataset: str
    root: Path
    cases: int
    issues: tuple[Issue, ...]
    duplicates: int = 0
    page: Path | None = None

    def to_dict(self) -> Mapping[str, Any]:
        """Return the issues as plain data."""
        issues = [
            {
                "case_id": issue.case_id,
                "path": str(issue.path),
                "kind": issue.kind,
                "message": issue.message,
            }
            for issue in self.issues
        ]
        return {
            "dataset": self.dataset,
            "root": str(self.root),
            "cases": self.cases,
            "issues": issues,
            "duplicates": self.duplicates,
            "page": None if self.page is None else str(self.page),
        }

    def __str__(self) -> str:
        """Return one line per issue, then the counts."""
        lines = [f"{issue.kind}: {issue.message}" for issue in self.issues]
        lines.append(
            f"{self.dataset}: {self.cases} cases, {len(self.issues)} issues in {self.root}"
        )
        if self.duplicates:
            lines.append(f"{self.duplicates} duplicate pairs in one split (segnetr data audit)")
        if self.page is not None:
            lines.append(f"page: {self.page}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOutcome:
    """A split and the file it was written to.

    Attributes:
        path: The file.
        split: The split.
    """

    path: Path
    split: Split

    def to_dict(self) -> Mapping[str, Any]:
        """Return the counts and the hash as plain data."""
        counts = {str(name): len(self.split.ids(name)) for name in SPLIT_NAMES}
        return {
            "path": str(self.path),
            "origin": self.split.origin,
            "seed": self.split.seed,
            "sha256": self.split.sha256,
            **counts,
        }

    def __str__(self) -> str:
        """Return the counts and the hash as two lines."""
        counts = ", ".join(f"{len(self.split.ids(name))} {name}" for name in SPLIT_NAMES)
        return f"{self.split.origin}: {counts}, sha256 {self.split.sha256[:16]}\nsplit: {self.path}"


def check_dataset(
    config: DataConfig, *, page: Path | None = None, progress: Progress
) -> CheckOutcome:
    """Read every file of a dataset and list all issues, including duplicates in two splits.

    Args:
        config: The dataset.
        page: HTML page with statistics, issues and a contact sheet to write.
        progress: Progress display.

    Raises:
        WriteError: If the page, or the cache of thumbnails, cannot be written.
    """
    opened = open_dataset(config)
    issues = check_pairs(opened.cases)
    incomplete = {issue.case_id for issue in issues}
    issues += check_patients(opened.cases)
    complete = [case for case in opened.cases if case.case_id not in incomplete]
    with progress.task("check", len(complete)) as advance:
        issues += check_cases(
            complete,
            opened.spec,
            max_pixels=config.max_pixels,
            workers=config.workers,
            progress=advance,
        )
    audited = compare_files(list_dataset_images(opened, config), config, progress=progress)
    issues += [_to_issue(pair) for pair in audited.leaking]
    outcome = CheckOutcome(
        dataset=opened.spec.name,
        root=opened.root,
        cases=len(opened.cases),
        issues=tuple(issues),
        duplicates=len(audited.pairs) - len(audited.leaking),
        page=page,
    )
    if page is not None:
        write_data_page(page, opened, config, issues, progress=progress)
    return outcome


def split_dataset(config: DataConfig, out: Path) -> SplitOutcome:
    """Write the split that training with these settings would use.

    Args:
        config: The dataset, fractions and seed.
        out: The file.

    Raises:
        DataError: If two cases have the same ID.
        WriteError: If the file cannot be written.
    """
    opened = open_dataset(config)
    split = divide(opened.cases, config)
    write_split(split, out)
    return SplitOutcome(path=out, split=split)


def _to_issue(pair: Duplicate) -> Issue:
    message = str(pair).partition(": ")[2]
    return Issue(
        case_id=pair.first.case_id, path=pair.first.path, kind="duplicate", message=message
    )

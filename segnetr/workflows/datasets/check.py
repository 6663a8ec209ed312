"""`segnetr data`: the data sets, and whether a folder of one can be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segnetr.config.schema.segmentation import DataConfig
from segnetr.data.case import SPLIT_NAMES, Split
from segnetr.data.splits.patients import check_patients
from segnetr.data.splits.split import write_split
from segnetr.data.splits.split_cases import divide
from segnetr.data.validation.audit import Issue, check_cases, check_pairs
from segnetr.progress import Progress
from segnetr.workflows.datasets.audit import Leak, compare, list_dataset_images
from segnetr.workflows.datasets.loading import open_dataset
from segnetr.workflows.datasets.page import write_data_page


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """What a check found.

    Attributes:
        dataset: Its name.
        root: Its folder.
        cases: How many there are.
        issues: What is wrong, one for each case or pair.
        doubles: Images that are there twice within one part of the split, which is no issue.
        page: The HTML page, if one was written.
    """

    dataset: str
    root: Path
    cases: int
    issues: tuple[Issue, ...]
    doubles: int = 0
    page: Path | None = None

    def to_dict(self) -> Mapping[str, Any]:
        """Give the issues as plain data."""
        issues = [
            {"case_id": f.case_id, "path": str(f.path), "kind": f.kind, "message": f.message}
            for f in self.issues
        ]
        return {
            "dataset": self.dataset,
            "root": str(self.root),
            "cases": self.cases,
            "issues": issues,
            "doubles": self.doubles,
            "page": None if self.page is None else str(self.page),
        }

    def __str__(self) -> str:
        """Give one line for each issue, then the count."""
        lines = [f"{f.kind}: {f.message}" for f in self.issues]
        lines.append(
            f"{self.dataset}: {self.cases} cases, {len(self.issues)} issues in {self.root}"
        )
        if self.doubles:
            lines.append(f"{self.doubles} pairs of alike images within one part: see data audit")
        if self.page is not None:
            lines.append(f"page: {self.page}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOutcome:
    """A split and where it was written."""

    path: Path
    split: Split

    def to_dict(self) -> Mapping[str, Any]:
        """Give counts and hash as plain data."""
        counts = {str(name): len(self.split.ids(name)) for name in SPLIT_NAMES}
        origin, seed = self.split.origin, self.split.seed
        return {
            "path": str(self.path),
            "origin": origin,
            "seed": seed,
            "sha256": self.split.sha256,
            **counts,
        }

    def __str__(self) -> str:
        """Give counts and hash as two lines."""
        counts = ", ".join(f"{len(self.split.ids(name))} {name}" for name in SPLIT_NAMES)
        return f"{self.split.origin}: {counts}, sha256 {self.split.sha256[:16]}\nsplit: {self.path}"


def check_dataset(
    config: DataConfig, *, page: Path | None = None, progress: Progress
) -> CheckOutcome:
    """Read every file of a data set and name each issue; alike images in two parts are one.

    Args:
        config: The data set.
        page: Write statistics, issues and a contact sheet here, as one HTML page.
        progress: What the user sees meanwhile.

    Raises:
        WriteError: If the page, or the cache of thumbnails, cannot be written.
    """
    opened = open_dataset(config)
    issues = check_pairs(opened.cases)
    named = {issue.case_id for issue in issues}
    issues += check_patients(opened.cases)
    whole = [case for case in opened.cases if case.case_id not in named]
    with progress.task("check", len(whole)) as advance:
        issues += check_cases(
            whole,
            opened.spec,
            max_pixels=config.max_pixels,
            workers=config.workers,
            progress=advance,
        )
    audited = compare(list_dataset_images(opened, config), config, progress=progress)
    issues += [_as_issue(leak) for leak in audited.leaks]
    outcome = CheckOutcome(
        dataset=opened.spec.name,
        root=opened.root,
        cases=len(opened.cases),
        issues=tuple(issues),
        doubles=len(audited.pairs) - len(audited.leaks),
        page=page,
    )
    if page is not None:
        write_data_page(page, opened, config, issues, progress=progress)
    return outcome


def split_dataset(config: DataConfig, out: Path) -> SplitOutcome:
    """Write the split a training with these settings would make.

    Args:
        config: The data set, shares and seed.
        out: The file.

    Raises:
        DataError: If two cases have one id.
        WriteError: If the file cannot be written.
    """
    opened = open_dataset(config)
    split = divide(opened.cases, config)
    write_split(split, out)
    return SplitOutcome(path=out, split=split)


def _as_issue(leak: Leak) -> Issue:
    first = leak.first
    message = str(leak).partition(": ")[2]
    return Issue(case_id=first.case_id, path=first.path, kind="leak", message=message)

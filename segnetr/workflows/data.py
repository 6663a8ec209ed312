"""`segnetr data`: the data sets, and whether a folder of one can be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segnetr.config.schema import DataConfig
from segnetr.data.audit import Fault, check_cases, check_pairs
from segnetr.engine.progress import Progress
from segnetr.workflows.dataset import open_dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome:
    """What a check found."""

    dataset: str
    root: Path
    cases: int
    faults: tuple[Fault, ...]

    def facts(self) -> Mapping[str, Any]:
        """Give the faults as plain data."""
        faults = [
            {"case_id": f.case_id, "path": str(f.path), "kind": f.kind, "message": f.message}
            for f in self.faults
        ]
        return {
            "dataset": self.dataset,
            "root": str(self.root),
            "cases": self.cases,
            "faults": faults,
        }

    def text(self) -> str:
        """Give one line for each fault, then the count."""
        lines = [f"{f.kind}: {f.message}" for f in self.faults]
        lines.append(
            f"{self.dataset}: {self.cases} cases, {len(self.faults)} faults in {self.root}"
        )
        return "\n".join(lines)


def check_dataset(config: DataConfig, *, progress: Progress) -> CheckOutcome:
    """Read every file of a data set and name each fault."""
    opened = open_dataset(config)
    faults = check_pairs(opened.cases)
    named = {fault.case_id for fault in faults}
    whole = [case for case in opened.cases if case.case_id not in named]
    with progress.task("check", len(whole)) as advance:
        faults += check_cases(
            whole,
            opened.spec,
            max_pixels=config.max_pixels,
            workers=config.workers,
            progress=advance,
        )
    return CheckOutcome(
        dataset=opened.spec.name, root=opened.root, cases=len(opened.cases), faults=tuple(faults)
    )

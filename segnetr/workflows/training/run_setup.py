"""What every training begins with, of whatever task: its folder, its split, what is known of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from segnetr.config.load import dump_config
from segnetr.data.case import SPLIT_NAMES, Split, Splittable
from segnetr.data.splits.split import make_split, read_split
from segnetr.data.validation.audit import Issue
from segnetr.engine.inference.allocator import tune_malloc
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.runtime import choose_device
from segnetr.errors import DataError
from segnetr.outputs.models.provenance import collect_provenance
from segnetr.storage.manifest import write_json, write_text_atomic

_NAMED_ISSUES = 5


class SplitSettings(Protocol):
    """The settings a split is made by."""

    @property
    def validation_share(self) -> float:
        """Share of the divided cases for validation."""
        ...

    @property
    def test_share(self) -> float:
        """Share of the divided cases for testing."""
        ...

    @property
    def split_seed(self) -> int:
        """Other seeds give other splits."""
        ...


def setup_process(device: str) -> None:
    """Check the device a training asks for, before minutes go into the data.

    On a processor the process is told to keep the memory it frees: a step of SegNetr at 224 x 224
    asks for half a million pages anew otherwise, a fifth of its time (benchmarks/README.md).

    Raises:
        UsageError: If there is no such device on this machine.
    """
    if choose_device(device).type == "cpu":
        tune_malloc()


def default_run_folder(dataset: str, network: str) -> Path:
    """Give the folder of a run that was given none."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("runs") / dataset / network / stamp


def choose_split(
    run: RunDir,
    cases: Sequence[Splittable],
    settings: SplitSettings,
    *,
    resume: bool,
    strata: Mapping[str, str] | None = None,
) -> Split:
    """Read the run's split when resuming, else make one.

    Raises:
        UsageError: If nothing can be divided so.
        DataError: If a resumed run lacks cases it began with.
    """
    if not resume:
        return make_split(
            cases,
            validation_share=settings.validation_share,
            test_share=settings.test_share,
            seed=settings.split_seed,
            strata=strata,
        )
    return resume_split(run, cases)


def resume_split(run: RunDir, cases: Sequence[Splittable]) -> Split:
    """Read the split a run began with.

    Raises:
        DataError: If the split was changed, or cases of it are not there any more.
    """
    split = read_split(run.splits)
    missing = {i for name in SPLIT_NAMES for i in split.ids(name)} - {c.case_id for c in cases}
    if missing:
        raise DataError(
            f"{run.splits}: {len(missing)} cases of the split are not in the data any more, "
            f"as {min(missing)}; a resumed run needs the same data"
        )
    return split


def describe_run(
    run: RunDir, config: Any, *, device: str, dataset: Mapping[str, Any], issues: Sequence[Issue]
) -> None:
    """Write the configuration, and what made the run.

    Args:
        run: The run, whose folder is there.
        config: The whole configuration.
        device: As in the configuration.
        dataset: Its name, title, count of cases, source and license.
        issues: What was left out.

    Raises:
        WriteError: If they cannot be written.
    """
    provenance = collect_provenance(device=choose_device(device))
    provenance["dataset"] = {
        **dataset,
        "left_out": [{"case_id": f.case_id, "message": f.message} for f in issues],
    }
    write_text_atomic(run.config, dump_config(config))
    write_json(run.provenance, provenance)


def explain_issues(issues: Sequence[Issue], root: Path) -> str:
    """Put the first issues of a data set into one line."""
    shown = "; ".join(issue.message for issue in issues[:_NAMED_ISSUES])
    more = f"; and {len(issues) - _NAMED_ISSUES} more" if len(issues) > _NAMED_ISSUES else ""
    return f"{root}: {len(issues)} issues: {shown}{more}"

"""Shared steps of all training commands: run folder, split, provenance, scoring, report."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from segnetr.config.load import dump_config
from segnetr.config.schema.segmentation import LoopConfig
from segnetr.data.case import SPLIT_NAMES, Split, Splittable
from segnetr.data.loading.loaders import ResumableSampler
from segnetr.data.splits.split import make_split, read_split, write_split
from segnetr.data.validation.audit import Issue
from segnetr.engine.inference.allocator import tune_malloc
from segnetr.engine.training.optim import count_steps
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.runtime import Runtime, choose_device
from segnetr.engine.training.trainer import TrainResult
from segnetr.errors import DataError, UsageError
from segnetr.outputs.models.provenance import collect_provenance
from segnetr.progress import LogFile, Progress
from segnetr.storage.lock import lock_folder
from segnetr.storage.manifest import write_json, write_text_atomic
from segnetr.workflows.outcome import Outcome
from segnetr.workflows.training.outcome import TrainOutcome

_NAMED_ISSUES = 5


class SplitSettings(Protocol):
    """The settings of a split."""

    @property
    def validation_share(self) -> float:
        """Share of the cases for validation."""
        ...

    @property
    def test_share(self) -> float:
        """Share of the cases for testing."""
        ...

    @property
    def split_seed(self) -> int:
        """Seed of the split."""
        ...


def setup_process(device: str) -> None:
    """Check the device of a training before the data is decoded, and tune the process for it.

    On a CPU, the process keeps the memory that it frees: otherwise a step of SegNetr at 224 x 224
    requests half a million pages again, a fifth of its time (benchmarks/README.md).

    Raises:
        UsageError: If this machine has no such device.
    """
    if choose_device(device).type == "cpu":
        tune_malloc()


def require_out(out: Path | None, *, resume: bool) -> None:
    """Require a folder for a resumed run.

    Raises:
        UsageError: If there is none.
    """
    if resume and out is None:
        raise UsageError("--resume needs --out: the folder of the run to continue")


def open_run(out: Path | None, *, resume: bool, dataset: str, network: str, device: str) -> RunDir:
    """Check the run folder and the device, and set up the process; nothing is written.

    Args:
        out: The run folder; None: a new folder, see `default_run_folder`.
        resume: Continue the run in `out`.
        dataset: Name of the dataset.
        network: Name of the network.
        device: Device of the training.

    Raises:
        UsageError: If the folder does not fit, or this machine has no such device.
    """
    require_out(out, resume=resume)
    run = RunDir(out or default_run_folder(dataset, network))
    run.check(resume=resume)
    setup_process(device)
    return run


@contextlib.contextmanager
def lock_run(run: RunDir, progress: Progress) -> Iterator[None]:
    """Keep other trainings out of the run folder. Under `torchrun`, the first process locks it.

    Raises:
        UsageError: If another process trains in the folder.
        WriteError: If the folder cannot be written.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    with lock_folder(run.path, on_message=progress.on_message):
        yield


def default_run_folder(dataset: str, network: str) -> Path:
    """Return the default folder of a new run: `runs/<dataset>/<network>/<date-time>`."""
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
    """Read the split of a resumed run, or make a new split.

    Raises:
        UsageError: If the cases cannot be split with these settings.
        DataError: If cases of a resumed run are missing.
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
    """Read the split of a resumed run.

    Raises:
        DataError: If the split was changed, or cases of it are missing.
    """
    split = read_split(run.splits)
    missing = {i for name in SPLIT_NAMES for i in split.ids(name)} - {c.case_id for c in cases}
    if missing:
        raise DataError(
            f"{run.splits}: {len(missing)} cases of the split are not in the data any more, "
            f"as {min(missing)}; a resumed run needs the same data"
        )
    return split


def build_sampler(
    settings: LoopConfig,
    cases: int,
    runtime: Runtime,
    *,
    start_step: int,
    labels: Sequence[int] | None = None,
) -> ResumableSampler:
    """Return the sampler of this process from a training step on.

    Args:
        settings: Batch size, accumulated passes, seed, number of steps.
        cases: Number of training samples.
        runtime: Rank and number of processes.
        start_step: Optimizer steps done before.
        labels: The class of each sample, to balance the classes; None: each sample once per epoch.
    """
    total = count_steps(settings, cases=cases, world=runtime.world)
    return ResumableSampler(
        cases,
        batch_size=settings.batch_size,
        seed=settings.seed,
        rank=runtime.rank,
        world=runtime.world,
        start_step=start_step * settings.accumulate,
        steps=total * settings.accumulate,
        labels=labels,
    )


def create_run(
    run: RunDir,
    config: Any,
    *,
    resume: bool,
    device: str,
    dataset: Mapping[str, Any],
    issues: Sequence[Issue],
    split: Split,
) -> None:
    """Create the run folder; for a new run, write configuration, provenance and split.

    Args:
        run: The run.
        config: The whole configuration.
        resume: The run is resumed, and only the folder is checked.
        device: As in the configuration.
        dataset: Name, title, number of cases, source and license of the dataset.
        issues: Issues of the excluded cases.
        split: The split of the cases.

    Raises:
        UsageError: If the folder does not fit a new or a resumed run.
        WriteError: If a file cannot be written.
    """
    run.create(resume=resume)
    if resume and run.provenance.is_file():
        return
    provenance = collect_provenance(device=choose_device(device))
    provenance["dataset"] = {
        **dataset,
        "left_out": [{"case_id": issue.case_id, "message": issue.message} for issue in issues],
    }
    write_json(run.provenance, provenance)
    if not resume:
        write_text_atomic(run.config, dump_config(config))
        write_split(split, run.splits)


def update_config(run: RunDir, config: Any) -> None:
    """Write the configuration of a resumed run, whose folders and device may have changed.

    Raises:
        WriteError: If it cannot be written.
    """
    write_text_atomic(run.config, dump_config(config))


def log_messages(run: RunDir, lines: Sequence[str], progress: Progress) -> None:
    """Show messages to the user, and write them to the log of the run."""
    for line in lines:
        progress.on_message(line)
        LogFile(run.log).on_message(line)


def finish_run(
    run: RunDir,
    result: TrainResult,
    *,
    evaluate: Callable[[], Outcome] | None,
    report: Callable[[Path], Path],
) -> TrainOutcome:
    """Write the timings of a finished training, score its model, and write its report.

    Args:
        run: The run, whose model is written.
        result: The result of the training.
        evaluate: Scores the model; None: there is no case to score.
        report: Writes the page of a run folder.
    """
    write_json(run.timings, {"seconds": round(result.seconds, 3), "steps": result.steps})
    evaluation = None if evaluate is None else evaluate()
    return TrainOutcome(run=run.path, result=result, evaluation=evaluation, report=report(run.path))


def reject_issues(issues: Sequence[Issue], root: Path, *, skip_invalid: bool, advice: str) -> None:
    """Reject a dataset with issues, unless the invalid cases are to be skipped.

    Args:
        issues: Issues of the dataset.
        root: Folder of the dataset.
        skip_invalid: Train without the invalid cases.
        advice: What the user can do.

    Raises:
        DataError: Names the first issues.
    """
    if not issues or skip_invalid:
        return
    shown = "; ".join(issue.message for issue in issues[:_NAMED_ISSUES])
    more = f"; and {len(issues) - _NAMED_ISSUES} more" if len(issues) > _NAMED_ISSUES else ""
    raise DataError(f"{root}: {len(issues)} issues: {shown}{more}. {advice}")

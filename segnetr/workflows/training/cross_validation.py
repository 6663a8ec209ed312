"""`segnetr train --fold`: a run for each fold, and one report over all of them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segnetr.config.schema.segmentation import RunConfig
from segnetr.engine.training.fold_dir import FoldDir
from segnetr.errors import UsageError
from segnetr.progress import Progress
from segnetr.workflows.training.fold_report import FoldOutcome, gather_folds
from segnetr.workflows.training.outcome import STOPPED_BY_SIGNAL
from segnetr.workflows.training.run_setup import default_run_folder
from segnetr.workflows.training.train import name_network, train


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossOutcome:
    """What a cross-validation came to.

    Attributes:
        run: Its folder.
        missing: Folds that are still to be trained.
        stopped: Why the last training ended; "finished" where all that was asked for is done.
        together: Scores over all folds; None while folds are missing.
    """

    run: Path
    missing: tuple[int, ...]
    stopped: str
    together: FoldOutcome | None

    def to_dict(self) -> Mapping[str, Any]:
        """Give the outcome as plain data."""
        together = None if self.together is None else self.together.to_dict()
        return {
            "run": str(self.run),
            "missing": list(self.missing),
            "stopped": self.stopped,
            "out_of_fold": together,
        }

    def __str__(self) -> str:
        """Give the outcome as lines for people."""
        if self.together is not None:
            return f"run:    {self.run}\n{self.together}"
        left = ", ".join(map(str, self.missing))
        lines = [f"run:    {self.run}", f"folds still to train: {left}"]
        lines.append("the report over folds comes with the last: --fold all --resume goes on")
        return "\n".join(lines)


def cross_validate(
    config: RunConfig,
    *,
    fold: int | None = None,
    out: Path | None = None,
    resume: bool = False,
    progress: Progress,
) -> CrossOutcome:
    """Train a network for each fold, or for one, and score it on that fold's cases.

    A fold's cases choose nothing about the network that is scored on them: the last weights are
    kept (not the best ones in validation), and no training is stopped early.

    Args:
        config: The whole configuration; `data.folds` says how many folds there are.
        fold: Only this one; the report is made when the last of them is done, in any order.
        out: The folder; None: `runs/<dataset>/<architecture>/<date-time>`.
        resume: Go on with the fold that stopped, and pass over the finished ones.
        progress: What the user sees meanwhile.

    Raises:
        UsageError: If the folder is in use or holds something else, or there is no such fold.
        DataError: As `train`.
    """
    folds = config.data.folds
    chosen = _choose(fold, folds)
    if resume and out is None:
        raise UsageError("--resume needs --out: the folder of the run to go on with")
    home = FoldDir(out or default_run_folder(config.data.dataset, name_network(config)))
    if resume and not home.index.is_file():
        raise UsageError(f"{home.path}: no cross-validation to resume; start without --resume")
    _refuse_used(home, chosen, resume=resume)
    home.open(folds)
    settings = replace(config, train=replace(config.train, keep="last", patience=0))
    if settings != config:
        progress.on_message("folds keep the last weights and are not stopped early")
    stopped = _train_folds(settings, home, chosen, resume=resume, progress=progress)
    missing = tuple(home.missing())
    together = None
    if not missing and stopped not in STOPPED_BY_SIGNAL:
        together = gather_folds(home, settings, progress=progress)
    return CrossOutcome(run=home.path, missing=missing, stopped=stopped, together=together)


def _choose(fold: int | None, folds: int) -> list[int]:
    if fold is not None:
        if not 1 <= fold <= folds:
            raise UsageError(f"--fold {fold}: there are folds 1 to {folds} (--folds)")
        return [fold]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--fold all runs in one process; under torchrun give --fold 1, 2, ...")
    return list(range(1, folds + 1))


def _refuse_used(home: FoldDir, chosen: Sequence[int], *, resume: bool) -> None:
    """Look at all folds before hours go into the first of them."""
    if resume:
        return
    used = [number for number in chosen if home.fold(number).has_checkpoint()]
    if used:
        raise UsageError(
            f"{home.fold(used[0]).path}: holds a run already; go on with --resume or choose "
            "another --out"
        )


def _train_folds(
    config: RunConfig, home: FoldDir, chosen: Sequence[int], *, resume: bool, progress: Progress
) -> str:
    """Train folds in turn until one is interrupted, and say why the last ended."""
    stopped = "finished"
    for number in chosen:
        if resume and home.is_done(number):
            progress.on_message(f"fold {number} of {config.data.folds}: done before")
            continue
        run = home.fold(number)
        progress.on_message(f"fold {number} of {config.data.folds}")
        outcome = train(
            replace(config, data=replace(config.data, fold=number)),
            out=run.path,
            resume=resume and run.has_checkpoint(),
            masks=home.masks,
            progress=progress,
        )
        stopped = outcome.stopped
        if stopped in STOPPED_BY_SIGNAL:
            break
    return stopped

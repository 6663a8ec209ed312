"""`segnetr train --fold`: train a run for each fold, and report over all folds."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segnetr.config.schema.segmentation import RunConfig
from segnetr.engine.training.fold_dir import FoldDir
from segnetr.errors import UsageError
from segnetr.progress import Progress
from segnetr.workflows.training.fold_report import FoldOutcome, gather_folds
from segnetr.workflows.training.outcome import STOPPED_BY_SIGNAL
from segnetr.workflows.training.resume import AllowedChange
from segnetr.workflows.training.run_setup import default_run_folder, require_out
from segnetr.workflows.training.train import name_network, train


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidationOutcome:
    """The outcome of a cross-validation.

    Attributes:
        run: Its folder.
        missing: Folds that are not trained yet.
        stopped: Stop reason of the last training; "finished" if all requested folds were done.
        scores: Scores over all folds; None while folds are missing.
    """

    run: Path
    missing: tuple[int, ...]
    stopped: str
    scores: FoldOutcome | None

    def to_dict(self) -> Mapping[str, Any]:
        """Return the outcome as plain data."""
        return {
            "run": str(self.run),
            "missing": list(self.missing),
            "stopped": self.stopped,
            "out_of_fold": None if self.scores is None else self.scores.to_dict(),
        }

    def __str__(self) -> str:
        """Return the outcome as lines of text."""
        if self.scores is not None:
            return f"run:    {self.run}\n{self.scores}"
        missing = ", ".join(map(str, self.missing))
        lines = [f"run:    {self.run}", f"folds still to train: {missing}"]
        lines.append("the report follows after the last fold; continue with --fold all --resume")
        return "\n".join(lines)


def cross_validate(
    config: RunConfig,
    *,
    fold: int | None = None,
    out: Path | None = None,
    resume: bool = False,
    allow_change: Collection[AllowedChange] = (),
    progress: Progress,
) -> CrossValidationOutcome:
    """Train a network for each fold, or for one fold, and score it on the cases of the fold.

    The cases of a fold must not influence the network that is scored on them, so the last weights
    are used instead of the best ones, and no training stops early.

    Args:
        config: The whole configuration; `data.folds` is the number of folds.
        fold: Train this fold only; the report is written once all folds are done, in any order.
        out: The folder; None: `runs/<dataset>/<architecture>/<date-time>`.
        resume: Continue the interrupted fold, and skip the finished ones.
        allow_change: What may differ from the run to resume.
        progress: Shows the progress.

    Raises:
        UsageError: If the folder is in use or contains other files, or there is no such fold.
        DataError: As `train`.
    """
    folds = config.data.folds
    chosen = _choose_folds(fold, folds)
    require_out(out, resume=resume)
    folder = FoldDir(out or default_run_folder(config.data.dataset, name_network(config)))
    if resume and not folder.index.is_file():
        raise UsageError(f"{folder.path}: no cross-validation to resume; start without --resume")
    _reject_used(folder, chosen, resume=resume)
    folder.open(folds)
    settings = replace(config, train=replace(config.train, keep="last", patience=0))
    if settings != config:
        progress.on_message("folds use the last weights and do not stop early")
    stopped = _train_folds(
        settings, folder, chosen, resume=resume, allow=allow_change, progress=progress
    )
    missing = tuple(folder.missing())
    scores = None
    if not missing and stopped not in STOPPED_BY_SIGNAL:
        scores = gather_folds(folder, settings, progress=progress)
    return CrossValidationOutcome(run=folder.path, missing=missing, stopped=stopped, scores=scores)


def _choose_folds(fold: int | None, folds: int) -> list[int]:
    if fold is not None:
        if not 1 <= fold <= folds:
            raise UsageError(f"--fold {fold}: there are folds 1 to {folds} (--folds)")
        return [fold]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "--fold all runs in one process; under torchrun use --fold 1, then --fold 2, ..."
        )
    return list(range(1, folds + 1))


def _reject_used(folder: FoldDir, chosen: Sequence[int], *, resume: bool) -> None:
    """Check the folders of all folds before the first training starts."""
    if resume:
        return
    used = [number for number in chosen if folder.fold(number).has_checkpoint()]
    if used:
        raise UsageError(
            f"{folder.fold(used[0]).path}: already contains a run; continue it with --resume or "
            "choose another --out"
        )


def _train_folds(
    config: RunConfig,
    folder: FoldDir,
    chosen: Sequence[int],
    *,
    resume: bool,
    allow: Collection[AllowedChange],
    progress: Progress,
) -> str:
    """Train the folds until one is interrupted, and return the last stop reason."""
    stopped = "finished"
    for number in chosen:
        if resume and folder.is_done(number):
            progress.on_message(f"fold {number} of {config.data.folds}: already done")
            continue
        run = folder.fold(number)
        progress.on_message(f"fold {number} of {config.data.folds}")
        outcome = train(
            replace(config, data=replace(config.data, fold=number)),
            out=run.path,
            resume=resume and run.has_checkpoint(),
            allow_change=allow,
            masks=folder.masks,
            progress=progress,
        )
        stopped = outcome.stopped
        if stopped in STOPPED_BY_SIGNAL:
            break
    return stopped

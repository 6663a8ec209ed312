"""`segnetr train`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segnetr.errors import STOP_CODES, UsageError

from . import flags as f
from .command import Console, command

if TYPE_CHECKING:
    from segnetr.workflows.training.cross_validation import CrossValidationOutcome
    from segnetr.workflows.training.outcome import TrainOutcome


@command(
    "data.dataset",
    "data.data_dir",
    "data.skip_invalid",
    "data.folds",
    "data.workers",
    "model.encoder",
    "model.skip",
    "train.encoder_weights",
    "train.accept_partial",
    "train.epochs",
    "train.steps",
    "train.batch_size",
    "train.lr",
    "train.loss",
    "train.seed",
    "train.amp",
    "train.compile",
    "train.deterministic",
    "train.device",
)
def train(
    flags: Mapping[str, Any],
    console: Console,
    fold: Annotated[
        str | None,
        typer.Option("--fold", metavar="all|N", help="Cross-validate.", rich_help_panel="Data"),
    ] = None,
    model: f.ModelName = None,
    config: f.Config = None,
    assignments: f.Set = None,
    resume: f.Resume = False,
    allow_change: f.AllowChange = None,
    out: f.Out = None,
) -> None:
    """Train a segmentation network, evaluate it on the test split, and write the run.

    With --fold, train one run per fold and write a report on all of them.

    Example: segnetr train --dataset isic2018 --data-dir DIR --out runs/first
    """
    if fold is not None and fold != "all" and not fold.isdecimal():
        raise UsageError(f"--fold {fold}: expected all or a number from 1")
    if flags["data.folds"] is not None and fold is None:
        raise UsageError("--folds requires --fold all or --fold NUMBER")
    allowed = f.check_allowed_changes(allow_change, resume=resume)
    settings = f.load_settings(flags, model=model, configs=config, assignments=assignments)
    from segnetr.workflows.training.cross_validation import cross_validate
    from segnetr.workflows.training.train import train as run

    progress = console.progress()
    outcome: CrossValidationOutcome | TrainOutcome
    if fold is None:
        outcome = run(settings, out=out, resume=resume, allow_change=allowed, progress=progress)
    else:
        number = None if fold == "all" else int(fold)
        outcome = cross_validate(
            settings,
            fold=number,
            out=out,
            resume=resume,
            allow_change=allowed,
            progress=progress,
        )
    console.print(outcome)
    raise typer.Exit(STOP_CODES.get(outcome.stopped, 0))

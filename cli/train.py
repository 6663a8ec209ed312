"""`segnetr train`."""

from typing import TYPE_CHECKING

import typer

from segnetr.errors import UsageError

from . import options as o
from .console import print_result
from .settings import read_settings

if TYPE_CHECKING:
    from segnetr.workflows.training.cross_validation import CrossValidationOutcome
    from segnetr.workflows.training.outcome import TrainOutcome

STOP_CODES = {"interrupted": 130, "terminated": 143}


def train(
    dataset: o.Dataset = None,
    data_dir: o.DataDir = None,
    skip_invalid: o.SkipInvalid = None,
    fold: o.Fold = None,
    folds: o.Folds = None,
    workers: o.Workers = None,
    model: o.Model = None,
    encoder: o.Encoder = None,
    encoder_weights: o.EncoderWeights = None,
    accept_partial: o.AcceptPartial = None,
    skip: o.Skip = None,
    config: o.Config = None,
    assignments: o.Set = None,
    epochs: o.Epochs = None,
    steps: o.Steps = None,
    batch_size: o.BatchSize = None,
    lr: o.LearningRate = None,
    loss: o.Loss = None,
    seed: o.Seed = None,
    amp: o.Amp = None,
    compiled: o.Compile = None,
    deterministic: o.Deterministic = None,
    device: o.Device = None,
    resume: o.Resume = False,
    out: o.Out = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Train a network on a data set, score it on the test part, write run and report.

    With --fold: cross-validation, a run for each fold below --out and one report over all.

    Example: segnetr train --dataset isic2018 --data-dir DIR --out runs/first
    """
    del verbose
    if fold is not None and fold != "all" and not fold.isdecimal():
        raise UsageError(f"--fold {fold}: give all or a number from 1")
    if folds is not None and fold is None:
        raise UsageError("--folds belongs to --fold all or --fold NUMBER")
    flags = {
        "data.data_dir": data_dir,
        "data.skip_invalid": skip_invalid,
        "data.folds": folds,
        "data.workers": workers,
        "model.encoder": encoder,
        "model.skip": skip,
        "train.encoder_weights": encoder_weights,
        "train.accept_partial": accept_partial,
        "train.epochs": epochs,
        "train.steps": steps,
        "train.batch_size": batch_size,
        "train.lr": lr,
        "train.loss": loss,
        "train.seed": seed,
        "train.amp": amp,
        "train.compile": compiled,
        "train.deterministic": deterministic,
        "train.device": device,
    }
    settings = read_settings(dataset, model, configs=config, flags=flags, assignments=assignments)
    from segnetr.progress import Progress
    from segnetr.workflows.training.cross_validation import cross_validate
    from segnetr.workflows.training.train import train as run

    progress = Progress(quiet=quiet or as_json)
    outcome: CrossValidationOutcome | TrainOutcome
    if fold is None:
        outcome = run(settings, out=out, resume=resume, progress=progress)
    else:
        number = None if fold == "all" else int(fold)
        outcome = cross_validate(settings, fold=number, out=out, resume=resume, progress=progress)
    print_result(outcome.to_dict(), as_json=as_json, text=str(outcome))
    raise typer.Exit(STOP_CODES.get(outcome.stopped, 0))

"""`segnetr classify`."""

from collections.abc import Mapping
from typing import Any

import typer

from segnetr.errors import STOP_CODES

from . import flags as f
from .command import Console, command


@command(
    "data.dataset",
    "data.data_dir",
    "data.skip_invalid",
    "data.workers",
    "backbone.name",
    "backbone.pretrained",
    "train.weights",
    "train.epochs",
    "train.steps",
    "train.batch_size",
    "train.lr",
    "train.seed",
    "train.amp",
    "train.compile",
    "train.deterministic",
    "train.device",
    schema="classification",
)
def classify(
    flags: Mapping[str, Any],
    console: Console,
    config: f.Config = None,
    assignments: f.Set = None,
    resume: f.Resume = False,
    allow_change: f.AllowChange = None,
    out: f.Out = None,
) -> None:
    """Train a backbone as a classifier, evaluate it on the test split, and write the run.

    Example: segnetr classify --backbone cvt_13 --dataset cifar10 --data-dir DIR --out runs/first
    """
    from segnetr.config.schema.classification import load_classify_config

    allowed = f.check_allowed_changes(allow_change, resume=resume)
    settings = load_classify_config(config or (), flags=flags, assignments=assignments or ())
    from segnetr.workflows.classification.train import classify as run

    outcome = run(
        settings, out=out, resume=resume, allow_change=allowed, progress=console.progress()
    )
    console.print(outcome)
    raise typer.Exit(STOP_CODES.get(outcome.stopped, 0))

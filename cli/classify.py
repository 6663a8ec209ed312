"""`segnetr classify`."""

import typer

from segnetr.config.schema.classification import load_classify_config

from . import options as o
from .console import print_result
from .train import STOP_CODES


def classify(
    backbone: o.BackboneName = None,
    dataset: o.ClassificationSource = None,
    data_dir: o.DataDir = None,
    skip_invalid: o.SkipInvalid = None,
    workers: o.Workers = None,
    pretrained: o.Pretrained = None,
    weights: o.StartWeights = None,
    config: o.Config = None,
    assignments: o.Set = None,
    epochs: o.Epochs = None,
    steps: o.Steps = None,
    batch_size: o.BatchSize = None,
    lr: o.LearningRate = None,
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
    """Train a backbone as a classifier, score it on the test part, write run and report.

    Example: segnetr classify --backbone cvt_13 --dataset cifar10 --data-dir DIR --out runs/first
    """
    del verbose
    flags = {
        "backbone.name": backbone,
        "backbone.pretrained": pretrained,
        "data.dataset": dataset,
        "data.data_dir": data_dir,
        "data.skip_invalid": skip_invalid,
        "data.workers": workers,
        "train.weights": weights,
        "train.epochs": epochs,
        "train.steps": steps,
        "train.batch_size": batch_size,
        "train.lr": lr,
        "train.seed": seed,
        "train.amp": amp,
        "train.compile": compiled,
        "train.deterministic": deterministic,
        "train.device": device,
    }
    settings = load_classify_config(config or (), flags=flags, assignments=assignments or ())
    from segnetr.progress import Progress
    from segnetr.workflows.classification.train import classify as run

    outcome = run(settings, out=out, resume=resume, progress=Progress(quiet=quiet or as_json))
    print_result(outcome.to_dict(), as_json=as_json, text=str(outcome))
    raise typer.Exit(STOP_CODES.get(outcome.stopped, 0))

"""`segnetr train`."""

import typer

from . import options as o
from .console import print_result
from .settings import read_settings

STOP_CODES = {"interrupted": 130, "terminated": 143}


def train(
    dataset: o.Dataset = None,
    data_dir: o.DataDir = None,
    leave_out_faulty: o.LeaveOutFaulty = None,
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

    Example: segnetr train --dataset isic2018 --data-dir DIR --out runs/first
    """
    del verbose
    flags = {
        "data.data_dir": data_dir,
        "data.leave_out_faulty": leave_out_faulty,
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
    from segnetr.engine.progress import Progress
    from segnetr.workflows.train import train as run

    outcome = run(settings, out=out, resume=resume, progress=Progress(quiet=quiet or as_json))
    print_result(outcome.facts(), as_json=as_json, text=outcome.text())
    raise typer.Exit(STOP_CODES.get(outcome.stopped, 0))

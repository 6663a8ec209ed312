"""`segnetr benchmark`."""

from pathlib import Path
from typing import Annotated

import typer

from segnetr.errors import UsageError

from . import options as o
from .console import print_result
from .settings import read_settings


def benchmark(
    encoders: Annotated[
        str | None,
        typer.Option("--encoders", help="all, or names with commas: SegNetr with each of them."),
    ] = None,
    ablation: Annotated[
        str | None,
        typer.Option("--ablation", help="irsc: networks with their own skips and with IRSC."),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option("--pairs", help="Which networks of --ablation, with commas; else all."),
    ] = None,
    dataset: o.Dataset = None,
    data_dir: o.DataDir = None,
    workers: o.Workers = None,
    model: o.Model = None,
    config: o.Config = None,
    assignments: o.Set = None,
    epochs: o.Epochs = None,
    steps: o.Steps = None,
    batch_size: o.BatchSize = None,
    seed: o.Seed = None,
    device: o.Device = None,
    out: Annotated[Path, typer.Option("--out", help="Folder; what is done there is kept.")] = Path(
        "benchmark"
    ),
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Train many networks on the same cases and budget: cost, speed, Dice; goes on where it was.

    Example: segnetr benchmark --encoders all --dataset isic2018 --data-dir DIR --steps 500
    """
    del verbose
    if (encoders is None) == (ablation is None) or ablation not in (None, "irsc"):
        raise UsageError("give either --encoders all|NAME,NAME or --ablation irsc")
    if pairs is not None and ablation is None:
        raise UsageError("--pairs belongs to --ablation irsc")
    flags = {
        "data.data_dir": data_dir,
        "data.workers": workers,
        "train.epochs": epochs,
        "train.steps": steps,
        "train.batch_size": batch_size,
        "train.seed": seed,
        "train.device": device,
    }
    settings = read_settings(dataset, model, configs=config, flags=flags, assignments=assignments)
    from segnetr.progress import Progress
    from segnetr.workflows.benchmarking import benchmark as workflow

    progress = Progress(quiet=quiet or as_json)
    if encoders is not None:
        outcome = workflow.benchmark_encoders(
            settings, encoders.split(","), out=out, progress=progress
        )
    else:
        chosen = pairs.split(",") if pairs else []
        outcome = workflow.benchmark_skips(settings, chosen, out=out, progress=progress)
    print_result(outcome.to_dict(), as_json=as_json, text=str(outcome))

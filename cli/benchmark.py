"""`segnetr benchmark`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from segnetr.errors import UsageError

from . import flags as f
from .command import Console, command


@command(
    "data.dataset",
    "data.data_dir",
    "data.workers",
    "train.epochs",
    "train.steps",
    "train.batch_size",
    "train.seed",
    "train.device",
)
def benchmark(
    flags: Mapping[str, Any],
    console: Console,
    encoders: Annotated[
        str | None,
        typer.Option("--encoders", metavar="all|A,B", help="Train SegNetr with these encoders."),
    ] = None,
    ablation: Annotated[
        str | None,
        typer.Option(
            "--ablation", metavar="irsc", help="Train networks with their own skips and IRSC."
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option("--pairs", metavar="A,B", help="Networks of --ablation; default: all."),
    ] = None,
    model: f.ModelName = None,
    config: f.Config = None,
    assignments: f.Set = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder; finished rows are reused.",
            rich_help_panel=f.OUTPUT_PANEL,
        ),
    ] = Path("benchmark"),
) -> None:
    """Train several networks on the same cases and budget, and compare cost, speed and Dice.

    A benchmark that was interrupted continues where it stopped.

    Example: segnetr benchmark --encoders all --dataset isic2018 --data-dir DIR --steps 500
    """
    if (encoders is None) == (ablation is None) or ablation not in (None, "irsc"):
        raise UsageError("expected either --encoders all|NAME,NAME or --ablation irsc")
    if pairs is not None and ablation is None:
        raise UsageError("--pairs requires --ablation irsc")
    settings = f.load_settings(flags, model=model, configs=config, assignments=assignments)
    from segnetr.workflows.benchmarking import benchmark as workflow

    progress = console.progress()
    if encoders is not None:
        outcome = workflow.benchmark_encoders(
            settings, encoders.split(","), out=out, progress=progress
        )
    else:
        chosen = pairs.split(",") if pairs else []
        outcome = workflow.benchmark_skips(settings, chosen, out=out, progress=progress)
    console.print(outcome)

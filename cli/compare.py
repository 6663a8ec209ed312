"""`segnetr compare`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from . import flags as f
from .command import Console, command


@command("data.dataset", "data.data_dir", "train.device")
def compare(
    flags: Mapping[str, Any],
    console: Console,
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Runs or cross-validations.")],
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Metric to compare; may be repeated. Default: dice, hd95, nsd.",
        ),
    ] = None,
    by_class: Annotated[
        bool, typer.Option("--by-class", help="Compare each class as well.")
    ] = False,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="train|validation|test", help="Split to compare on."),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the comparison.", rich_help_panel=f.OUTPUT_PANEL
        ),
    ] = Path("comparison"),
) -> None:
    """Compare runs on the same cases: confidence intervals, paired tests and images.

    The scores are those of `segnetr evaluate`. With --dataset, they are those on that dataset.

    Example: segnetr compare runs/first runs/second --out runs/first-second
    """
    from segnetr.workflows.comparison import compare as workflow

    options = workflow.CompareOptions(
        metrics=metrics or (),
        by_class=by_class,
        dataset=flags["data.dataset"],
        split_name=split,
        data_dir=flags["data.data_dir"],
        device=flags["train.device"] or "auto",
    )
    console.print(workflow.compare(runs, options, out=out, progress=console.progress()))

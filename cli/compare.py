"""`segnetr compare`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .console import print_result


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN..", help="Runs or cross-validations.")
    ],
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metric", help="As dice or hd95; may be repeated. Default: dice hd95 nsd."),
    ] = None,
    by_class: Annotated[
        bool, typer.Option("--by-class", help="Compare each class as well.")
    ] = False,
    dataset: o.Dataset = None,
    part: Annotated[str | None, typer.Option("--part", help="Compare scores on this part.")] = None,
    data_dir: o.DataDir = None,
    device: o.Device = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the result itself.")] = Path(
        "comparison"
    ),
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Say which run is better on the same cases, with interval, test, and images.

    Scores are those of `segnetr evaluate`; with --dataset those on another data set.

    Example: segnetr compare runs/first runs/second --out runs/first-second
    """
    del verbose
    from segnetr.progress import Progress
    from segnetr.workflows.comparison import compare as workflow

    choice = workflow.CompareOptions(
        metrics=metrics or (),
        by_class=by_class,
        dataset=dataset,
        part=part,
        data_dir=data_dir,
        device=device or "auto",
    )
    outcome = workflow.compare(runs, choice, out=out, progress=Progress(quiet=quiet or as_json))
    print_result(outcome.to_dict(), as_json=as_json, text=str(outcome))

"""`segnetr demo`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .console import print_result


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the demo.")] = Path("demo"),
    assignments: o.Set = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Train on drawn images, predict, score and report: the whole job in a few minutes.

    Example: segnetr demo
    """
    del verbose
    from segnetr.progress import Progress
    from segnetr.workflows.demo import demo as run

    outcome = run(out, assignments=assignments or (), progress=Progress(quiet=quiet or as_json))
    print_result(outcome.to_dict(), as_json=as_json, text=str(outcome))

"""`segnetr demo`."""

from pathlib import Path
from typing import Annotated

import typer

from . import flags as f
from .command import Console, command


@command()
def demo(
    console: Console,
    assignments: f.Set = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the demo.", rich_help_panel=f.OUTPUT_PANEL
        ),
    ] = Path("demo"),
) -> None:
    """Train on synthetic images, predict, evaluate and report, in a few minutes.

    Example: segnetr demo
    """
    from segnetr.workflows.demo import demo as run

    console.print(run(out, assignments=assignments or (), progress=console.progress()))

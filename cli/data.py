"""`segnetr data`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from . import prepare
from .console import print_result
from .settings import read_settings

application = typer.Typer(no_args_is_help=True, help="List, check and describe data sets.")
FAULTS_FOUND = 4
application.command("prepare")(prepare.prepare)


@application.command("list")
def list_datasets(as_json: o.Json = False, verbose: o.Verbose = False) -> None:
    """List the data sets: what they hold, where they come from, their licence, their archives."""
    del verbose
    from segnetr.workflows.data_list import list_datasets as run

    table = run()
    print_result(table.facts(), as_json=as_json, text=table.text())


@application.command("check")
def check(
    dataset: o.Dataset = None,
    data_dir: o.DataDir = None,
    workers: o.Workers = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Read every file of a data set and name each fault; exit code 4 if there is one.

    Example: segnetr data check --dataset isic2018 --data-dir DIR
    """
    del verbose
    flags = {"data.data_dir": data_dir, "data.workers": workers}
    settings = read_settings(dataset, None, flags=flags)
    from segnetr.engine.progress import Progress
    from segnetr.workflows.data import check_dataset

    outcome = check_dataset(settings.data, progress=Progress(quiet=quiet or as_json))
    print_result(outcome.facts(), as_json=as_json, text=outcome.text())
    raise typer.Exit(FAULTS_FOUND if outcome.faults else 0)


@application.command("init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Your folder of images and masks.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Description file, if not DIR/dataset.yaml.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a description that is there.")
    ] = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
) -> None:
    """Describe your own folder by looking at it: pairs, classes, channels; only that is written.

    Example: segnetr data init DIR, then segnetr train --dataset folder --data-dir DIR
    """
    del verbose
    from segnetr.workflows.data_init import init_folder

    outcome = init_folder(folder, out=out, overwrite=overwrite)
    print_result(outcome.facts(), as_json=as_json, text=outcome.text())

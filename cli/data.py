"""`segnetr data`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from . import prepare
from .console import print_result
from .settings import read_settings

application = typer.Typer(
    no_args_is_help=True, help="List, prepare, describe, check, audit and split data sets."
)
ISSUES_FOUND = 4
PARTIAL = 3
application.command("prepare")(prepare.prepare)


@application.command("list")
def list_datasets(as_json: o.Json = False, verbose: o.Verbose = False) -> None:
    """List the data sets: what they hold, where they come from, their license, their archives."""
    del verbose
    from segnetr.workflows.datasets.list_datasets import list_datasets as run

    table = run()
    print_result(table.to_dict(), as_json=as_json, text=str(table))


@application.command("check")
def check(
    dataset: o.Dataset = None,
    data_dir: o.DataDir = None,
    workers: o.Workers = None,
    assignments: o.Set = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Also write a page: statistics, issues, masks over images."),
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Read every file of a data set and name each issue; exit code 4 if there is one.

    Images that are alike and lie in two parts of the split are issues too.

    Example: segnetr data check --dataset isic2018 --data-dir DIR --html check.html
    """
    del verbose
    flags = {"data.data_dir": data_dir, "data.workers": workers}
    settings = read_settings(dataset, None, flags=flags, assignments=assignments)
    from segnetr.progress import Progress
    from segnetr.workflows.datasets.check import check_dataset

    progress = Progress(quiet=quiet or as_json)
    outcome = check_dataset(settings.data, page=html, progress=progress)
    print_result(outcome.to_dict(), as_json=as_json, text=str(outcome))
    raise typer.Exit(ISSUES_FOUND if outcome.issues else 0)


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
    from segnetr.workflows.datasets.init import init_folder

    outcome = init_folder(folder, out=out, overwrite=overwrite)
    print_result(outcome.to_dict(), as_json=as_json, text=str(outcome))


@application.command("audit")
def audit(
    dataset: o.Dataset = None,
    data_dir: o.DataDir = None,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", help="Further set: NAME=DIR, or a folder; may be repeated."),
    ] = None,
    workers: o.Workers = None,
    assignments: o.Set = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Find images that are there twice, also resized, recompressed, mirrored, turned or cut.

    One line for each pair; exit code 4 if a pair lies in two parts of the split or in two sets.

    Example: segnetr data audit --dataset isic2018 --data-dir DIR --against isic2017=DIR2
    """
    del verbose
    flags = {"data.data_dir": data_dir, "data.workers": workers}
    settings = read_settings(dataset, None, flags=flags, assignments=assignments)
    from segnetr.progress import Progress
    from segnetr.workflows.datasets.audit import audit as run

    outcome = run(settings.data, against or (), progress=Progress(quiet=quiet or as_json))
    print_result(outcome.to_dict(), as_json=as_json, text=str(outcome))
    raise typer.Exit(ISSUES_FOUND if outcome.leaks else PARTIAL if outcome.unread else 0)


@application.command("split")
def split(
    out: Annotated[Path, typer.Option("--out", help="The file to write, as splits.json.")],
    dataset: o.Dataset = None,
    data_dir: o.DataDir = None,
    fold: Annotated[int | None, typer.Option("--fold", help="The split of one fold.")] = None,
    folds: o.Folds = None,
    assignments: o.Set = None,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
) -> None:
    """Write the split a training would make: official, or seeded, stratified, whole patients.

    Example: segnetr data split --dataset isic2018 --data-dir DIR --out splits.json
    """
    del verbose
    flags = {"data.data_dir": data_dir, "data.fold": fold, "data.folds": folds}
    settings = read_settings(dataset, None, flags=flags, assignments=assignments)
    from segnetr.workflows.datasets.check import split_dataset

    outcome = split_dataset(settings.data, out)
    print_result(outcome.to_dict(), as_json=as_json, text=str(outcome))

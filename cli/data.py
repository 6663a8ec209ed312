"""`segnetr data`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from segnetr.errors import UsageError

from . import flags as f
from .command import ISSUES_FOUND, PARTIAL_SUCCESS, Console, command, make_group

_SOURCE = "Source"
_LIMITS = "Limits of an archive"

DatasetName = Annotated[str, typer.Argument(metavar="NAME", help="Dataset (segnetr data list).")]
More = Annotated[
    list[Path] | None, typer.Argument(metavar="SOURCE", help="Further sources.", hidden=True)
]
Source = Annotated[
    list[Path] | None,
    typer.Option(
        "--source",
        metavar="PATH",
        help="Official archives (.zip, .tar, .tar.gz), or a folder of them or of their files.",
        rich_help_panel=_SOURCE,
    ),
]
Download = Annotated[
    bool,
    typer.Option(
        "--download",
        help="Download missing archives; continues a partial download.",
        rich_help_panel=_SOURCE,
    ),
]
Subset = Annotated[
    str | None,
    typer.Option(
        "--subset",
        metavar="NAME",
        help="Task or file of a collection.",
        rich_help_panel=_SOURCE,
    ),
]
AcceptLicense = Annotated[
    bool,
    typer.Option(
        "--accept-license", help="Accept the license without asking.", rich_help_panel=_SOURCE
    ),
]
KeepArchives = Annotated[
    bool,
    typer.Option(
        "--keep-archives", help="Do not delete downloaded archives.", rich_help_panel=_SOURCE
    ),
]
MaxFiles = Annotated[
    int,
    typer.Option(
        "--max-files",
        metavar="N",
        min=1,
        help="Largest number of files.",
        rich_help_panel=_LIMITS,
    ),
]
MaxGib = Annotated[
    float,
    typer.Option(
        "--max-gib", metavar="X", min=0, help="Largest unpacked size.", rich_help_panel=_LIMITS
    ),
]
MaxRatio = Annotated[
    float,
    typer.Option(
        "--max-ratio",
        metavar="X",
        min=1,
        help="Largest compression ratio.",
        rich_help_panel=_LIMITS,
    ),
]


@command()
def list_datasets(console: Console) -> None:
    """List the datasets with their contents, sources, licenses and archives."""
    from segnetr.workflows.datasets.list_datasets import list_datasets as run

    console.print(run())


@command("data.data_dir", "data.workers")
def prepare(
    flags: Mapping[str, Any],
    console: Console,
    name: DatasetName,
    more: More = None,
    source: Source = None,
    download: Download = False,
    subset: Subset = None,
    accept_license: AcceptLicense = False,
    keep_archives: KeepArchives = False,
    max_files: MaxFiles = 200_000,
    max_gib: MaxGib = 200.0,
    max_ratio: MaxRatio = 100.0,
) -> None:
    """Download and unpack official archives into --data-dir, completely or not at all.

    Example: segnetr data prepare isic2018 --source ISIC2018_*.zip --data-dir DIR
    """
    from segnetr.data.download.safe_names import ArchiveLimits
    from segnetr.workflows.datasets.prepare import PrepareRequest, prepare_dataset

    if flags["data.data_dir"] is None:
        raise UsageError("--data-dir is missing: the folder that the dataset is unpacked into")
    request = PrepareRequest(
        dataset=name,
        data_dir=flags["data.data_dir"],
        sources=(*(source or ()), *(more or ())),
        fetches=download,
        subset=subset,
        accepts_license=accept_license,
        keeps_archives=keep_archives,
        workers=flags["data.workers"],
        limits=ArchiveLimits(files=max_files, total_bytes=int(max_gib * 2**30), ratio=max_ratio),
    )
    outcome = prepare_dataset(request, confirm=_ask, progress=console.progress())
    console.print(outcome)
    raise typer.Exit(ISSUES_FOUND if outcome.issues else 0)


def _ask(terms: str) -> bool:
    """Ask the user to accept a license; without a terminal, return False."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(f"{terms}\nDo you accept this license and start the download?", err=True)


@command()
def init(
    console: Console,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of images and masks.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Description file; default: DIR/dataset.yaml."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing description.")
    ] = False,
) -> None:
    """Write a dataset.yaml that describes your own folder of images and masks.

    Example: segnetr data init DIR, then segnetr train --dataset folder --data-dir DIR
    """
    from segnetr.workflows.datasets.init import init_folder

    console.print(init_folder(folder, out=out, overwrite=overwrite))


@command("data.dataset", "data.data_dir", "data.workers")
def check(
    flags: Mapping[str, Any],
    console: Console,
    assignments: f.Set = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Also write an HTML page with statistics, issues and masks.",
        ),
    ] = None,
) -> None:
    """Read every file of a dataset and list all issues; the exit code is 4 if there are any.

    Duplicate images in two splits are issues, too.

    Example: segnetr data check --dataset isic2018 --data-dir DIR --html check.html
    """
    settings = f.load_settings(flags, assignments=assignments)
    from segnetr.workflows.datasets.check import check_dataset

    outcome = check_dataset(settings.data, page=html, progress=console.progress())
    console.print(outcome)
    raise typer.Exit(ISSUES_FOUND if outcome.issues else 0)


@command("data.dataset", "data.data_dir", "data.workers")
def audit(
    flags: Mapping[str, Any],
    console: Console,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="NAME=DIR",
            help="Another dataset, or a folder of images; may be repeated.",
        ),
    ] = None,
    assignments: f.Set = None,
) -> None:
    """Find duplicate images, even if resized, recompressed, mirrored, rotated or cropped.

    The exit code is 4 if a pair of duplicates is in two splits or in two datasets.

    Example: segnetr data audit --dataset isic2018 --data-dir DIR --against isic2017=DIR2
    """
    settings = f.load_settings(flags, assignments=assignments)
    from segnetr.workflows.datasets.audit import audit as run

    outcome = run(settings.data, against or (), progress=console.progress())
    console.print(outcome)
    raise typer.Exit(
        ISSUES_FOUND if outcome.leaking else PARTIAL_SUCCESS if outcome.unreadable else 0
    )


@command("data.dataset", "data.data_dir", "data.fold", "data.folds")
def split(
    flags: Mapping[str, Any],
    console: Console,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="File to write, for example splits.json.")
    ],
    assignments: f.Set = None,
) -> None:
    """Write the split that training would use: official, or seeded and grouped by patient.

    Example: segnetr data split --dataset isic2018 --data-dir DIR --out splits.json
    """
    settings = f.load_settings(flags, assignments=assignments)
    from segnetr.workflows.datasets.check import split_dataset

    console.print(split_dataset(settings.data, out))


data = make_group(
    "data",
    help_text="List, prepare, describe, check, audit and split datasets.",
    table={
        "list": list_datasets,
        "prepare": prepare,
        "init": init,
        "check": check,
        "audit": audit,
        "split": split,
    },
)

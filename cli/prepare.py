"""`segnetr data prepare`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .console import print_result

ISSUES_FOUND = 4
_SOURCE = "Source"
_LIMITS = "Limits of an archive"

Name = Annotated[str, typer.Argument(help="Data set, see `segnetr data list`.")]
Further = Annotated[list[Path] | None, typer.Argument(help="Further sources.", hidden=True)]
Source = Annotated[
    list[Path] | None,
    typer.Option(
        "--source",
        help="Official archives (.zip, .tar, .tar.gz), or a folder of them, or unpacked.",
        rich_help_panel=_SOURCE,
    ),
]
Download = Annotated[
    bool,
    typer.Option("--download", help="Fetch what --source lacks; goes on.", rich_help_panel=_SOURCE),
]
Subset = Annotated[
    str | None,
    typer.Option("--subset", help="Which task or file of a collection.", rich_help_panel=_SOURCE),
]
AcceptLicense = Annotated[
    bool,
    typer.Option(
        "--accept-license", help="The license was read and holds.", rich_help_panel=_SOURCE
    ),
]
KeepArchives = Annotated[
    bool,
    typer.Option("--keep-archives", help="Keep what was fetched.", rich_help_panel=_SOURCE),
]
MaxFiles = Annotated[
    int, typer.Option("--max-files", min=1, help="Files and folders.", rich_help_panel=_LIMITS)
]
MaxGib = Annotated[
    float, typer.Option("--max-gib", min=0, help="GiB, unpacked.", rich_help_panel=_LIMITS)
]
MaxRatio = Annotated[
    float,
    typer.Option("--max-ratio", min=1, help="Bytes for each packed one.", rich_help_panel=_LIMITS),
]


def prepare(
    name: Name,
    further: Further = None,
    source: Source = None,
    data_dir: o.DataDir = None,
    download: Download = False,
    subset: Subset = None,
    accept_license: AcceptLicense = False,
    keep_archives: KeepArchives = False,
    workers: o.Workers = None,
    max_files: MaxFiles = 200_000,
    max_gib: MaxGib = 200.0,
    max_ratio: MaxRatio = 100.0,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Unpack official archives safely into --data-dir, whole or not at all, and audit them.

    Example: segnetr data prepare isic2018 --source ISIC2018_*.zip --data-dir DIR
    """
    del verbose
    from segnetr.data.download.safe_names import Limits
    from segnetr.errors import UsageError
    from segnetr.progress import Progress
    from segnetr.workflows.datasets.prepare import PrepareRequest, prepare_dataset

    if data_dir is None:
        raise UsageError("--data-dir is missing: the folder that will hold the data set")
    request = PrepareRequest(
        dataset=name,
        data_dir=data_dir,
        sources=(*(source or ()), *(further or ())),
        fetches=download,
        subset=subset,
        accepts_license=accept_license,
        keeps_archives=keep_archives,
        workers=workers,
        limits=Limits(files=max_files, total_bytes=int(max_gib * 2**30), ratio=max_ratio),
    )
    outcome = prepare_dataset(request, confirm=_ask, progress=Progress(quiet=quiet or as_json))
    print_result(outcome.facts(), as_json=as_json, text=outcome.text())
    raise typer.Exit(ISSUES_FOUND if outcome.issues else 0)


def _ask(terms: str) -> bool:
    """Ask on a terminal; where nobody can answer, the answer is no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(f"{terms}\nDo you accept this license, and fetch it?", err=True)

"""The `segnetr` command: its subcommands and `--version`."""

from typing import Annotated, Final

import typer

from segnetr import __version__

from .command import Group

COMMANDS: Final = {
    "train": "train:train",
    "classify": "classify:classify",
    "predict": "predict:predict",
    "evaluate": "evaluate:evaluate",
    "compare": "compare:compare",
    "report": "report:report",
    "benchmark": "benchmark:benchmark",
    "demo": "demo:demo",
    "data": "data:data",
    "models": "models:models",
}
"""Module and function of each command; only the command that is used is imported."""


class _Root(Group):
    table = COMMANDS


application = typer.Typer(
    cls=_Root,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Segment and classify medical images: train, predict, evaluate, report.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"segnetr {__version__}")
        raise typer.Exit


@application.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Accept the options before a command; the callback of `--version` has run already."""
    del version


def main() -> None:
    """Run the command line; the entry point of the package."""
    application()

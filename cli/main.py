"""The `segnetr` command: its verbs, its exit codes, its one-line errors."""

import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from segnetr import __version__
from segnetr.errors import SegNetrError

from . import benchmark, classify, compare, data, demo, evaluate, models, predict, report, train

INTERRUPTED = 130


class _Group(TyperGroup):
    """Turns our errors into one line and the right exit code, for every verb."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except SegNetrError as error:
            _fail(str(error), error.exit_code)
        except MemoryError:
            _fail("out of memory; a smaller --batch-size or train.image_size needs less", 1)
        except KeyboardInterrupt:
            _fail("interrupted", INTERRUPTED)


def _fail(message: str, code: int) -> None:
    if "--verbose" in sys.argv:
        traceback.print_exc()
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


application = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Segment and classify medical images: train, predict, score, report.",
)
application.command("train")(train.train)
application.command("classify")(classify.classify)
application.command("predict", cls=predict.PredictCommand)(predict.predict)
application.command("evaluate")(evaluate.evaluate)
application.command("compare")(compare.compare)
application.command("report")(report.report)
application.command("benchmark")(benchmark.benchmark)
application.command("demo")(demo.demo)
application.add_typer(data.application, name="data")
application.add_typer(models.application, name="models")


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
    """Take the options that stand before a verb; `--version` has done its work already."""
    del version


def main() -> None:
    """Run the command line; the entry point of the package."""
    application()

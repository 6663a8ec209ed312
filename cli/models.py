"""`segnetr models`."""

from typing import Annotated

import typer

from . import options as o
from .console import print_result

application = typer.Typer(no_args_is_help=True, help="List and show networks.")


@application.command("list")
def list_models(as_json: o.Json = False, verbose: o.Verbose = False) -> None:
    """List the networks with parameters and multiply-adds."""
    del verbose
    from segnetr.workflows.models import list_models as run

    table = run()
    print_result(table.facts(), as_json=as_json, text=table.text())


@application.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A name of `segnetr models list`.")],
    as_json: o.Json = False,
    verbose: o.Verbose = False,
) -> None:
    """Show one network: settings, cost by part, and the published figures beside ours."""
    del verbose
    from segnetr.workflows.models import show_model

    card = show_model(name)
    print_result(card.facts(), as_json=as_json, text=card.text())

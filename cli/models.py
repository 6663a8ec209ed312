"""`segnetr models`."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .console import print_result

application = typer.Typer(no_args_is_help=True, help="List and show networks.")


@application.command("list")
def list_models(
    as_json: o.Json = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The README's table of backbones.")
    ] = False,
    verbose: o.Verbose = False,
) -> None:
    """List networks and backbones with parameters, multiply-adds and published figures."""
    del verbose
    if markdown:
        from segnetr.workflows.models.backbones import backbone_markdown

        typer.echo(backbone_markdown())
        return
    from segnetr.workflows.models.list_models import list_models as run

    table = run()
    print_result(table.to_dict(), as_json=as_json, text=str(table))


@application.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A name of `segnetr models list`.")],
    as_json: o.Json = False,
    verbose: o.Verbose = False,
) -> None:
    """Show one network or backbone: settings, cost, published figures, sources."""
    del verbose
    from segnetr.workflows.models.list_models import show_model

    card = show_model(name)
    print_result(card.to_dict(), as_json=as_json, text=str(card))


@application.command("soup")
def soup(
    models: Annotated[list[Path], typer.Argument(help="Runs or model folders of one network.")],
    out: Annotated[Path, typer.Option("--out", help="The model folder to write.")],
    as_json: o.Json = False,
    verbose: o.Verbose = False,
) -> None:
    """Average the weights of models of one architecture, and write them as a model."""
    del verbose
    from segnetr.workflows.prediction.ensemble import write_soup

    mixed = write_soup(models, out)
    facts = {"out": str(out), "models": [str(path) for path in models]}
    classes = len(mixed.card.classes)
    text = f"model:  mean of {len(models)} models of {classes} classes in {out}"
    print_result(facts, as_json=as_json, text=text)

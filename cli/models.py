"""`segnetr models`."""

from pathlib import Path
from typing import Annotated

import typer

from .command import Console, command, make_group


@command()
def list_models(
    console: Console,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table of docs/backbones.md.")
    ] = False,
) -> None:
    """List networks and backbones with parameters, multiply-adds and published accuracy."""
    if markdown:
        from segnetr.workflows.models.backbones import backbone_markdown

        typer.echo(backbone_markdown())
        return
    from segnetr.workflows.models.list_models import list_models as run

    console.print(run())


@command()
def show(
    console: Console,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Network or backbone (segnetr models list).")
    ],
) -> None:
    """Show the settings, cost, published results and sources of a network or backbone.

    Example: segnetr models show cvt_13
    """
    from segnetr.workflows.models.list_models import show_model

    console.print(show_model(name))


@command()
def soup(
    console: Console,
    models: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Runs or model folders of one network.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Model folder to write.")],
) -> None:
    """Average the weights of several models of one architecture into a new model.

    Example: segnetr models soup runs/a runs/b --out soup
    """
    from segnetr.workflows.prediction.ensemble import write_soup

    average = write_soup(models, out)
    facts = {"out": str(out), "models": [str(path) for path in models]}
    classes = len(average.card.classes)
    console.print_facts(
        facts, f"model:  mean of {len(models)} models with {classes} classes in {out}"
    )


models = make_group(
    "models",
    help_text="List and show networks, and average their weights.",
    table={"list": list_models, "show": show, "soup": soup},
)

"""From the flags of a command to a checked configuration."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from segnetr.config.load import list_recipes, load_config, require_recipe
from segnetr.config.schema.segmentation import RunConfig
from segnetr.data.datasets.registry import find_dataset_name


def read_settings(
    dataset: str | None,
    model: str | None,
    *,
    configs: Sequence[str] | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] | None = None,
) -> RunConfig:
    """Put recipes, files and flags together, in the order of their precedence.

    `--dataset` and `--model` are recipes that stand above the files of `--config`: a flag wins.
    """
    recipes = list(configs or [])
    if dataset is not None:
        name = find_dataset_name(dataset)
        if name != dataset:
            typer.echo(f"note: dataset {dataset!r} is now called {name!r}", err=True)
        if name in list_recipes("dataset"):
            recipes.append(f"dataset/{name}")
        else:  # a recipe is optional
            flags = {"data.dataset": name, **(flags or {})}
    if model is not None:
        recipes.append(require_recipe("model", model))
    return load_config(recipes, flags=flags, assignments=assignments or ())

"""The flags of the commands: those derived from the schema, and those that are not settings."""

import dataclasses
import inspect
import re
import types
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import typer

from segnetr.errors import UsageError

if TYPE_CHECKING:
    from segnetr.config.schema.segmentation import RunConfig

OUTPUT_PANEL: Final = "Output"
_PANELS: Final = {
    "train.device": None,
    "data": "Data",
    "model": "Model",
    "backbone": "Model",
    "train": "Training",
}
_SCHEMAS: Final = {
    "segmentation": ("segnetr.config.schema.segmentation", "RunConfig"),
    "classification": ("segnetr.config.schema.classification", "ClassifyConfig"),
}
_METAVARS: Final = {int: "N", float: "X", str: "NAME", Path: "PATH"}
# Settings whose names alone make no good flag.
_NAMES: Final = {"backbone.name": "--backbone"}
# Settings whose values are the names of a table above the schema in the order of layers.
_TABLES: Final = {"train.loss": ("segnetr.losses", "LOSSES")}

# Flags that are not settings: one name, one meaning, in every command.
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME", help="Network (segnetr models list).", rich_help_panel="Model"
    ),
]
Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        metavar="FILE|NAME",
        help="YAML file or packaged recipe such as train/paper; may be repeated.",
        rich_help_panel="Training",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting, for example train.image_size=256; may be repeated.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue the run in --out, bit for bit as if it had not stopped.",
        rich_help_panel="Training",
    ),
]
AllowChange = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-change",
        metavar="data",
        help="Resume although images or masks were changed; the run records it.",
        rich_help_panel="Training",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Folder of the result itself.", rich_help_panel=OUTPUT_PANEL
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON.", rich_help_panel=OUTPUT_PANEL)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Show no progress.", rich_help_panel=OUTPUT_PANEL)
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show tracebacks of errors.", rich_help_panel=OUTPUT_PANEL)
]


def setting_parameter(path: str, schema: str) -> inspect.Parameter:
    """Return the command parameter of one setting: flag, type and help come from the schema.

    Args:
        path: Dotted key of the setting, for example "train.lr".
        schema: "segmentation" or "classification".
    """
    kind, choices = _find_type(path, schema)
    flag = _NAMES.get(path) or "--" + path.rpartition(".")[2].replace("_", "-")
    if kind is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    option = typer.Option(
        flag,
        help=_find_help(path, schema),
        metavar="|".join(choices) or _METAVARS.get(kind),
        rich_help_panel=_PANELS.get(path, _PANELS.get(path.partition(".")[0])),
    )
    annotated: Any = Annotated  # the type is known only at run time
    return inspect.Parameter(
        path.replace(".", "_"),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=annotated[kind | None, option],
    )


def section(flags: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the values of one section by their keys within it."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): value for key, value in flags.items() if key.startswith(prefix)
    }


def check_allowed_changes(
    names: Sequence[str] | None, *, resume: bool
) -> tuple[Literal["data"], ...]:
    """Return the values of --allow-change.

    Raises:
        UsageError: If a value is unknown, or nothing is resumed.
    """
    for name in names or ():
        if name != "data":
            raise UsageError(f"--allow-change {name}: only data may be changed")
    if names and not resume:
        raise UsageError("--allow-change requires --resume")
    return ("data",) if names else ()


def load_settings(
    flags: Mapping[str, Any],
    *,
    model: str | None = None,
    configs: Sequence[str] | None = None,
    assignments: Sequence[str] | None = None,
) -> "RunConfig":
    """Merge recipes, files and flags into a checked configuration.

    `--dataset` and `--model` name recipes, which override the files of `--config`.

    Args:
        flags: Values of the flags by dotted key; None means that the flag was not given.
        model: Name of a network.
        configs: Files and recipes of `--config`.
        assignments: "key=value" strings of `--set`.

    Raises:
        UsageError: If a name, key or value is invalid.
    """
    from segnetr.config.load import list_recipes, load_config, require_recipe

    recipes, flags = list(configs or []), dict(flags)
    dataset = flags.get("data.dataset")
    if dataset in list_recipes("dataset"):
        recipes.append(require_recipe("dataset", dataset))
        del flags["data.dataset"]
    elif dataset is not None:
        from segnetr.data.datasets.registry import get_dataset

        flags["data.dataset"] = get_dataset(dataset).name
    if model is not None:
        recipes.append(require_recipe("model", model))
    config = load_config(recipes, flags=flags, assignments=assignments or ())
    _check_table_names(config)
    return config


def _check_table_names(config: "RunConfig") -> None:
    """Refuse unknown names before anything is read, for settings whose values are in a table."""
    from segnetr.config.schema.segmentation import RunConfig
    from segnetr.errors import unknown_name

    for path in _TABLES:
        part, _, key = path.partition(".")
        name = getattr(getattr(config, part), key)
        if name == getattr(getattr(RunConfig(), part), key):
            continue
        known = _table_names(path)
        if name not in known:
            raise unknown_name(key, name, known)


def _table_names(path: str) -> list[str]:
    module, name = _TABLES[path]
    return list(getattr(import_module(module), name))


def _find_type(path: str, schema: str) -> tuple[Any, list[str]]:
    """Return the type of a setting on the command line, and the names it can be given by."""
    choices = _table_names(path) if path in _TABLES else []
    kinds = []
    for owner in _find_owners(path, schema):
        hint = get_type_hints(owner)[path.rpartition(".")[2]]
        options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        for option in options:
            if get_origin(option) is Literal:
                choices += [str(value) for value in get_args(option)]
                kinds.append(type(get_args(option)[0]))
            elif option is not types.NoneType:
                kinds.append(option)
    if len(set(kinds)) != 1 or kinds[0] not in (bool, int, float, str, Path):
        raise TypeError(f"{path}: a setting of type {kinds} cannot be a flag")
    return kinds[0], list(dict.fromkeys(choices))


def _find_help(path: str, schema: str) -> str:
    """Return the first sentence of a setting's description in the schema."""
    for owner in _find_owners(path, schema):
        for ancestor in owner.__mro__:
            text = _read_attributes(ancestor.__doc__ or "").get(path.rpartition(".")[2])
            if text:
                return re.split(r"(?<=[.])\s|;\s", text)[0].removesuffix(".") + "."
    return ""


@cache
def _read_attributes(docstring: str) -> dict[str, str]:
    """Return the descriptions in the `Attributes` section of a docstring, by name."""
    _, found, text = inspect.cleandoc(docstring).partition("Attributes:\n")
    if not found:
        return {}
    parts = re.split(r"^ {4}(\w+): ", text, flags=re.MULTILINE)
    return {
        name: " ".join(words.split()) for name, words in zip(parts[1::2], parts[2::2], strict=True)
    }


@cache
def _find_owners(path: str, schema: str) -> list[type]:
    """Return the classes of the schema that have a setting; several networks may have it."""
    module, name = _SCHEMAS[schema]
    *sections, key = path.split(".")
    owners = [getattr(import_module(module), name)]
    for part in sections:
        hints = [get_type_hints(owner)[part] for owner in owners]
        owners = [kind for hint in hints for kind in (get_args(hint) or (hint,))]
    found = [
        owner for owner in owners if any(item.name == key for item in dataclasses.fields(owner))
    ]
    if not found:
        raise KeyError(f"{path}: not a setting of {name}")
    return found

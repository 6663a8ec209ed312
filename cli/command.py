"""How functions become commands: flags, one-line errors, exit codes and output."""

import functools
import inspect
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from segnetr.errors import STOP_CODES, SegNetrError, suggest

from . import flags as f

if TYPE_CHECKING:
    from segnetr.progress import Progress

PARTIAL_SUCCESS: Final = 3
ISSUES_FOUND: Final = 4

_DECLARATION: Final = "__segnetr_command__"
_CONSOLE: Final = {"as_json": f.Json, "quiet": f.Quiet, "verbose": f.Verbose}
_Function = TypeVar("_Function", bound=Callable[..., None])


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """The output of a command: progress on stderr, one result on stdout.

    Attributes:
        as_json: Print the result as one JSON object.
        quiet: Show no progress.
    """

    as_json: bool = False
    quiet: bool = False

    def progress(self) -> "Progress":
        """Return the progress display."""
        from segnetr.progress import Progress

        return Progress(quiet=self.quiet or self.as_json)

    def print(self, outcome: Any) -> None:
        """Print the outcome of a workflow."""
        self.print_facts(outcome.to_dict(), str(outcome))

    def print_facts(self, facts: Mapping[str, Any], text: str) -> None:
        """Print a result as JSON or as text."""
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False) if self.as_json else text)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Declaration:
    settings: Sequence[str]
    schema: str
    lists: Sequence[str]


def command(
    *settings: str, schema: str = "segmentation", lists: Sequence[str] = ()
) -> Callable[[_Function], _Function]:
    """Declare a function as a command.

    The function receives the values of `settings` by dotted key as `flags`, and the output as
    `console`, if it has parameters of these names. Its other parameters are typer's.

    Args:
        settings: Dotted keys of the settings that are flags of the command.
        schema: The schema that describes them: "segmentation" or "classification".
        lists: Flags that take several values, as in `--model A B`. Before the first positional
            argument they take one value, so that `--model A image.png` works as well.
    """

    def declare(function: _Function) -> _Function:
        declaration = _Declaration(settings=settings, schema=schema, lists=lists)
        setattr(function, _DECLARATION, declaration)
        return function

    return declare


class Command(TyperCommand):
    """A command with help by panel, old flags, and flags that take several values."""

    lists: Sequence[str] = ()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line."""
        from segnetr.config.renames import rename_flags

        known = [name for param in self.params for name in (*param.opts, *param.secondary_opts)]
        args = rename_flags(args, known)
        return super().parse_args(ctx, self._repeat_lists(args) if self.lists else args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options by panel."""
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                is_argument = param.param_type_name == "argument"
                panel = getattr(param, "rich_help_panel", None) or "Options"
                panels.setdefault("Arguments" if is_argument else panel, []).append(record)
        for last in ("Options", f.OUTPUT_PANEL):
            panels[last] = panels.pop(last, [])
        for title, records in panels.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def _repeat_lists(self, args: Sequence[str]) -> list[str]:
        """Repeat a flag before each of its values: `--model A B` as `--model A --model B`."""
        with_value = {
            name
            for param in self.params
            if param.param_type_name == "option" and not getattr(param, "is_flag", False)
            for name in param.opts
        }
        words: list[str] = []
        flag, is_value, has_argument = "", False, False
        for word in args:
            if is_value:
                is_value = False
            elif word.startswith("-"):
                flag = word.partition("=")[0]
                is_value = word in with_value
            elif flag in self.lists and has_argument:
                words.append(flag)
            else:
                flag, has_argument = "", True
            words.append(word)
        return words


class Group(TyperGroup):
    """A command with subcommands, which are imported when they are used.

    Attributes:
        table: The subcommands by name: functions, groups, or "module:name" in this package.
    """

    table: Mapping[str, Any] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the subcommands."""
        del ctx
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a subcommand, or None if there is none of that name."""
        del ctx
        if cmd_name not in self.table:
            return None
        target = self._import(cmd_name)
        return target if isinstance(target, TyperGroup) else build_command(target, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the subcommand that a command line begins with, and its arguments."""
        name = args[0]
        if name not in self.table:
            ctx.fail(f"No such command {name!r}; {suggest(name, self.table)}".strip("; "))
        return name, self.get_command(ctx, name), args[1:]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the subcommands with the first sentence of their help."""
        del ctx
        rows = []
        for name in self.table:
            target = self._import(name)
            text = target.help if isinstance(target, TyperGroup) else inspect.getdoc(target)
            rows.append((name, (text or "").split("\n\n")[0].replace("\n", " ")))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _import(self, name: str) -> Any:
        target = self.table[name]
        if not isinstance(target, str):
            return target
        module, _, attribute = target.partition(":")
        return getattr(import_module(f".{module}", __package__), attribute)


def make_group(name: str, *, help_text: str, table: Mapping[str, Any]) -> Group:
    """Build a group of commands."""
    group = Group(name=name, help=help_text, no_args_is_help=True, rich_markup_mode=None)
    group.table = table
    return group


def build_command(function: Callable[..., None], name: str) -> Any:
    """Build a command from a function that `command` has declared."""
    declaration: _Declaration = getattr(function, _DECLARATION)
    application = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    application.command(name, cls=Command)(_expand(function, declaration))
    built: Any = get_command(application)
    built.lists = declaration.lists
    return built


def _expand(function: Callable[..., None], declaration: _Declaration) -> Callable[..., None]:
    """Replace `flags` and `console` in the signature by the options they stand for."""
    settings = {
        path: f.setting_parameter(path, declaration.schema) for path in declaration.settings
    }
    own = inspect.signature(function).parameters
    parameters: list[inspect.Parameter] = []
    for item in own.values():
        if item.name == "flags":
            parameters += settings.values()
        elif item.name != "console":
            parameters.append(item.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    parameters += [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation
        )
        for name, annotation in _CONSOLE.items()
    ]

    from segnetr.config.renames import rename_value

    @functools.wraps(function)
    def run(**values: Any) -> None:
        as_json, quiet, verbose = (values.pop(name) for name in _CONSOLE)
        given = {path: rename_value(path, values.pop(item.name)) for path, item in settings.items()}
        if "flags" in own:
            values["flags"] = given
        if "console" in own:
            values["console"] = Console(as_json=as_json, quiet=quiet)
        try:
            function(**values)
        except SegNetrError as error:
            _fail(str(error), error.exit_code, verbose=verbose)
        except MemoryError:
            _fail("out of memory: reduce --batch-size or train.image_size", 1, verbose=verbose)
        except KeyboardInterrupt:
            _fail("interrupted", STOP_CODES["interrupted"], verbose=verbose)

    del run.__wrapped__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in parameters}
    return run


def _fail(message: str, code: int, *, verbose: bool) -> NoReturn:
    if verbose:
        traceback.print_exc()
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)

"""Commands: flags with several values, old flags, errors, and lazy loading."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from segnetr.cli.command import Command, Console, build_command, command, make_group
from segnetr.cli.main import COMMANDS, application
from typer.testing import CliRunner

from segnetr.config import renames
from segnetr.errors import UsageError

SEEN: list[Mapping[str, Any]] = []


@command("data.skip_invalid", "train.lr", lists=["--model"])
def sample(
    flags: Mapping[str, Any],
    console: Console,
    inputs: Annotated[list[Path], typer.Argument(help="Inputs.")],
    models: Annotated[list[str], typer.Option("--model", help="Models.")],
    out: Annotated[str, typer.Option("--out", help="Folder.")] = "out",
) -> None:
    """Do something."""
    if out == "error":
        raise UsageError("out is 'error';\nchoose another")
    SEEN.append({"flags": flags, "inputs": inputs, "models": models, "out": out})
    console.print_facts({"models": models}, "text")


def run(*arguments: str):
    """Run the sample command in a group."""
    SEEN.clear()
    renames.announce.cache_clear()
    group = make_group("group", help_text="A group.", table={"sample": sample})
    root = typer.Typer(add_completion=False, rich_markup_mode=None)
    root.command("sample", cls=Command)(lambda: None)
    runner = CliRunner()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", lambda _: group)
        return runner.invoke(root, ["sample", *arguments])


@pytest.mark.parametrize(
    ("arguments", "models", "inputs"),
    [
        (["a.png", "--model", "m", "n", "o"], ["m", "n", "o"], ["a.png"]),
        (["a.png", "--model", "m", "n", "--out", "x"], ["m", "n"], ["a.png"]),
        (["a.png", "--model", "m", "--model", "n"], ["m", "n"], ["a.png"]),
        (["a.png", "--model=m", "n"], ["m", "n"], ["a.png"]),
        (["--model", "m", "a.png", "b.png"], ["m"], ["a.png", "b.png"]),
        (["--lr", "1", "--model", "m", "a.png"], ["m"], ["a.png"]),
        (["--model", "m", "--out", "x", "a.png"], ["m"], ["a.png"]),
    ],
)
def test_flag_takes_several_values_after_the_first_argument(arguments, models, inputs):
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert SEEN[0]["models"] == models
    assert [str(path) for path in SEEN[0]["inputs"]] == inputs


def test_flags_are_passed_by_dotted_key():
    run("a.png", "--model", "m", "--lr", "0.5", "--skip-invalid")
    assert SEEN[0]["flags"] == {"data.skip_invalid": True, "train.lr": 0.5}


def test_old_flag_is_accepted_with_one_line(capsys):
    done = run("a.png", "--model", "m", "--leave-out-faulty")
    assert done.exit_code == 0
    assert SEEN[0]["flags"]["data.skip_invalid"] is True
    assert done.stderr.splitlines() == ["note: --leave-out-faulty is now --skip-invalid"]


def test_old_flag_is_not_in_the_help():
    assert "--leave-out-faulty" not in run("--help").stdout


def test_error_is_one_line_and_its_exit_code():
    done = run("a.png", "--model", "m", "--out", "error")
    assert done.exit_code == 2
    assert done.stderr == "error: out is 'error'; choose another\n"


def test_traceback_is_printed_on_request():
    done = run("a.png", "--model", "m", "--out", "error", "--verbose")
    assert done.exit_code == 2
    assert "Traceback" in done.stderr


def test_result_is_text_or_json():
    assert run("a.png", "--model", "m").stdout == "text\n"
    assert run("a.png", "--model", "m", "--json").stdout == '{\n  "models": [\n    "m"\n  ]\n}\n'


def test_unknown_command_is_an_error_with_the_closest_name():
    done = CliRunner().invoke(application, ["trian"])
    assert done.exit_code == 2
    assert "did you mean 'train'" in done.stderr


def test_command_has_the_name_of_its_table_entry():
    assert build_command(sample, "other").name == "other"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["classify", "--help"],
        ["train", "--help"],
    ],
)
def test_help_and_version_import_only_what_they_show(arguments):
    code = (
        "import sys\n"
        "from segnetr.cli.main import application\n"
        f"try: application({arguments})\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stderr.split())
    assert not modules & {"torch", "numpy", "rich", "monai", "SimpleITK"}
    loaded = {name for name in COMMANDS if f"segnetr.cli.{name}" in modules}
    assert loaded == ({*COMMANDS} if arguments == ["--help"] else {*COMMANDS} & {*arguments})
    if len(arguments) == 1:
        assert "pydantic" not in modules

"""A small drawn data set and a small run, made once through the real command line."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from segnetr.cli.main import application
from typer.testing import CliRunner

from segnetr.data.datasets.synthetic.dataset import draw_dataset

TINY = [
    *("--model", "segnetr_any_s", "--set", "model.width=8", "--set", "train.image_size=32"),
    *("--set", "train.warmup_steps=1", "--batch-size", "4", "--workers", "0", "--device", "cpu"),
]

_WORKFLOWS = "segnetr.workflows"
_SETTERS = (
    f"{_WORKFLOWS}.prediction.predict.tune_malloc",
    f"{_WORKFLOWS}.training.run_setup.tune_malloc",
)


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def command() -> Callable[..., Done]:
    """Run `segnetr` in this process, which has imported torch already.

    All tests of a worker share it, so the process is not told to keep what it frees; and a limit on
    its memory counts what large networks of other tests left, so tests with `--max-memory` either
    give much or say what the system would.
    """

    def run(*arguments: object, cwd: Path | None = None) -> Done:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.chdir(cwd or Path.cwd()))
            for setter in _SETTERS:
                stack.enter_context(mock.patch(setter))
            result = CliRunner().invoke(application, [str(item) for item in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., "subprocess.Popen[bytes]"]:
    """Start `segnetr` in a process of its own, one thread, with a cache of its own."""
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "SEGNETR_HOME": str(tmp_path / "home")}

    def begin(*arguments: object) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "segnetr.cli", *map(str, arguments)],
            env=surroundings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    return begin


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Flags of a network and a training that take a second."""
    return TINY


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawn images in the ISIC 2018 layout, official split and all."""
    folder = tmp_path_factory.mktemp("synthetic") / "isic2018"
    draw_dataset(folder, counts={"train": 6, "validation": 3, "test": 3}, seed=5)
    return folder


@pytest.fixture(scope="session")
def trained(
    command: Callable[..., Done], images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of four steps."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    arguments = ["--dataset", "isic2018", "--data-dir", images, "--out", run, "--steps", 4]
    cache = ["--set", f"data.cache_dir={run.parent / 'cache'}"]
    done = command("train", *arguments, *TINY, *cache, "--quiet")
    assert done.returncode == 0, done.stderr
    return run

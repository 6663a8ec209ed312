"""A small synthetic dataset and a small run, created once with the real command line."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from segnetr.cli.main import application
from support.small_models import make_model
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
    """Exit code and output of a command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def command() -> Callable[..., Done]:
    """Run `segnetr` in this process, which has imported torch already.

    All tests of a worker share the process, so malloc is not tuned. A limit on its memory includes
    what other tests have allocated, so tests with `--max-memory` either set a high limit or mock
    the system's answer.
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
    """Start `segnetr` in a separate process with one thread and its own cache."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SEGNETR_HOME": str(tmp_path / "home")}

    def begin(*arguments: object) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "segnetr.cli", *map(str, arguments)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    return begin


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Flags of a network that trains in a second."""
    return TINY


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve synthetic images in the ISIC 2018 layout with its official split."""
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


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs of the same small network with other weights."""
    folder = tmp_path_factory.mktemp("models")
    return [make_model(folder / name, seed) for seed, name in enumerate("abc")]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images in two folders."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png", "sub/a.png", "sub/d.png"):
        Image.fromarray(random.integers(0, 256, (40, 50), dtype=np.uint8)).save(folder / name)
    return folder

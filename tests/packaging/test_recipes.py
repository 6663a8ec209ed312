"""The recipes of CONTRIBUTING.md work in a copy of the source tree, all five in one copy."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("segnetr", "hybrid_backbones", "cli", "configs", "tests")
BLOCK = re.compile(r"<!-- recipe (\w+): (.+?) -->\n```(?:python|text)\n(.*?)```", re.DOTALL)

pytestmark = pytest.mark.slow


class Copy:
    """A copy of the source tree with the recipes applied."""

    def __init__(self, root: Path, recipes: Sequence[str]) -> None:
        self.root = root
        for folder in FOLDERS:
            shutil.copytree(
                ROOT / folder,
                root / folder,
                ignore=shutil.ignore_patterns("__pycache__", "fixtures", "records"),
            )
        shutil.copy(ROOT / "pyproject.toml", root)
        # An installed package has these two folders inside `segnetr`.
        (root / "segnetr" / "cli").symlink_to(root / "cli")
        (root / "segnetr" / "configs").symlink_to(root / "configs")
        for recipe in recipes:
            for action, code in read_recipe(recipe):
                self.apply(action, code)

    def apply(self, action: str, code: str) -> None:
        """Apply one block: a new file, one line after a line, or code before a line."""
        if action.startswith("new file "):
            target = self.root / action.removeprefix("new file ")
            assert not target.exists()
            target.write_text(code)
            return
        name, where, start = re.fullmatch(
            r"(?:line|code) in (\S+) (after|before) (.+)", action
        ).groups()
        lines = (self.root / name).read_text().splitlines(keepends=True)
        (at,) = [i for i, line in enumerate(lines) if line.startswith(start)]
        assert where == "before" or len(code.splitlines()) == 1, "one line, as promised"
        lines.insert(at + (where == "after"), code)
        (self.root / name).write_text("".join(lines))

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run Python in the copy; the copy has precedence over the installed package."""
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    def segnetr(self, *arguments: object) -> str:
        """Run a command that must succeed, and return its output."""
        done = self.run("-m", "segnetr.cli", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pytest(self, *arguments: object) -> str:
        """Run tests that must pass, and return a line for each."""
        done = self.run("-m", "pytest", "-v", "-p", "no:cacheprovider", *arguments)
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout


def read_recipe(name: str) -> list[tuple[str, str]]:
    """Return (action, code) of each block of a recipe."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = [(action, code) for recipe, action, code in BLOCK.findall(text) if recipe == name]
    assert blocks
    return blocks


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy of the source tree with all recipes."""
    recipes = ("backbone", "dataset", "loss", "metric", "command")
    return Copy(tmp_path_factory.mktemp("recipes") / "tree", recipes)


@pytest.fixture(scope="module")
def contract(copy: Copy) -> str:
    """The contract tests of the new entries, run in the copy: a line for each."""
    return copy.pytest(
        "tests/contract/test_backbone_registry.py",
        "tests/contract/test_backbones.py",
        "tests/contract/test_registries.py",
        "tests/unit/data/datasets/test_registry.py",
        *("-k", "tiny_net or covered_by_a_small or kvasir or squared_error or sensitivity"),
    )


def test_new_backbone_is_tested_and_accepted(copy: Copy, contract: str):
    assert len(re.findall(r"test_backbone_registry.py::.*tiny_net.* PASSED", contract)) >= 3
    assert len(re.findall(r"test_backbones.py::.*tiny_net.* PASSED", contract)) >= 10
    assert "covered_by_a_small" in contract
    card = json.loads(copy.segnetr("models", "show", "tiny_net", "--json"))
    assert card["name"] == "tiny_net"
    code = (
        "from segnetr.models.segnetr.backbone_encoder import list_encoders\n"
        "assert 'tiny_net' in list_encoders()"
    )
    assert copy.run("-c", code).returncode == 0


def test_new_dataset_is_tested_and_accepted(copy: Copy, contract: str, tmp_path: Path):
    assert re.search(r"test_registry.py::.*kvasir.* PASSED", contract)
    data = tmp_path / "data"
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 99, (40, 40, 3), np.uint8)
            pixels[10 + 5 * number : 20 + 5 * number, 5 : 15 + 9 * number] += 150
            image = Image.fromarray(
                pixels if folder == "images" else (pixels[..., 0] > 120) * np.uint8(255)
            )
            image.save(data / folder / f"{number}.png")
    found = copy.segnetr("data", "check", "--dataset", "kvasir", "--data-dir", data, "--json")
    assert json.loads(found)["issues"] == []
    listed = json.loads(copy.segnetr("data", "list", "--json"))
    assert "kvasir" in json.dumps(listed)


def test_new_loss_is_tested_and_accepted(copy: Copy, contract: str):
    assert re.search(r"test_registries.py::.*squared_error.* PASSED", contract)
    assert "squared_error" in copy.segnetr("train", "--help")
    # --resume without --out stops after the configuration has been checked.
    accepted = copy.run("-m", "segnetr.cli", "train", "--loss", "squared_error", "--resume")
    assert "--out" in accepted.stderr
    refused = copy.run("-m", "segnetr.cli", "train", "--loss", "squared_eror", "--resume")
    assert refused.returncode == 2
    assert "squared_error" in refused.stderr


def test_new_metric_is_tested_and_computed(copy: Copy, contract: str, tmp_path: Path):
    assert re.search(r"test_registries.py::.*sensitivity.* PASSED", contract)
    for folder in ("predictions", "ground_truth"):
        (tmp_path / folder).mkdir()
        for number in range(3):
            mask = np.zeros((40, 40), np.uint8)
            mask[10:20, 10 : 30 if folder == "ground_truth" else 20] = 255
            Image.fromarray(mask).save(tmp_path / folder / f"{number}.png")
    scores = copy.segnetr(
        *("evaluate", "--predictions", tmp_path / "predictions"),
        *("--ground-truth", tmp_path / "ground_truth", "--json"),
    )
    rows = json.loads(scores)["summaries"]
    (row,) = [row for row in rows if row["metric"] == "sensitivity"]
    assert row["mean"] == pytest.approx(0.5)


def test_new_command_is_accepted(copy: Copy):
    assert json.loads(copy.segnetr("hello", "Ada", "--json")) == {"greeting": "Hello Ada"}
    assert "hello" in copy.segnetr("--help")
    assert "Your name." in copy.segnetr("hello", "--help")

"""Rules of the source tree that no linter checks."""

import ast
import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("cli", "hybrid_backbones", "segnetr")
    for path in (ROOT / folder).rglob("*.py")
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "base", "util", "helper"}


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_with_code_is_a_listed_package():
    settings = pyproject()["tool"]["setuptools"]
    renamed = {"cli": "segnetr.cli", "configs": "segnetr.configs"}
    folders = {path.parent.relative_to(ROOT) for path in [*SOURCES, *ROOT.glob("configs/*.py")]}
    packages = {renamed.get(str(folder), str(folder).replace("/", ".")) for folder in folders}
    assert packages == set(settings["packages"])


@pytest.mark.slow
def test_folders_files_and_names_follow_the_layout_rules():
    """Folders hold at most 15 files, files at most 450 lines, and each has a docstring."""
    folders = Counter(path.parent for path in [*SOURCES, *TESTS] if path.name != "__init__.py")
    full = [f"{folder.relative_to(ROOT)}: {n}" for folder, n in folders.items() if n > 15]
    assert not full, f"more than 15 Python files: {full}"
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in SOURCES}
    long = [name for name, text in texts.items() if len(text.splitlines()) > 450]
    assert not long, f"more than 450 lines: {long}"
    unnamed = [name for name in texts if Path(name).stem in FORBIDDEN_NAMES]
    assert not unnamed, f"meaningless names: {unnamed}"
    silent = [name for name, text in texts.items() if not ast.get_docstring(ast.parse(text))]
    assert not silent, f"no module docstring: {silent}"


# Names that several modules define on purpose, because they fill the same role in each.
ROLES = {"SPEC", "SPECS", "SMALL"}  # entries of the registries
PAIRS = {  # a kernel and its dispatcher, a layer of either package, a function and its re-export
    "Classifier", "PatchEmbed", "PatchMerging", "Stem", "conv2d", "linear", "list_models", "load",
    "merge_windows", "pad_to_multiple", "partition_windows",
}  # fmt: skip


@pytest.mark.slow
def test_a_public_name_is_defined_in_one_module():
    """Commands share the name of their workflow, and architectures the names of their papers."""
    places: dict[str, set[str]] = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [node]
            for target in targets:
                name = getattr(target, "name", getattr(target, "id", "_"))
                if not name.startswith("_"):
                    places.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    unclear = []
    for name, files in places.items():
        own = {file for file in files if not file.startswith("cli/")}
        is_paper = all(file.startswith("hybrid_backbones/architectures/") for file in own)
        if len(own) > 1 and not is_paper and name not in ROLES | PAIRS:
            unclear.append(f"{name}: {sorted(own)}")
    assert not unclear, "\n".join(unclear)


@pytest.mark.slow
def test_functions_stay_short():
    long = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                start = (
                    node.body[0].lineno
                    if ast.get_docstring(node) is None
                    else (node.body[1].lineno if len(node.body) > 1 else node.end_lineno)
                )
                if node.end_lineno - start + 1 > 60:
                    long.append(f"{path.relative_to(ROOT)}:{node.name}")
    assert not long


def test_configuration_and_help_need_no_torch():
    code = (
        "import sys, segnetr, segnetr.config.load, segnetr.cli.main\n"
        "assert not {'torch', 'monai', 'numpy'} & set(sys.modules), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_pinned_dependency_of_the_project_is_in_the_constraints():
    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    project = pyproject()["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(item for extra in extras for item in extra)]
    names = {item.split(">=")[0].lower().replace("_", "-") for item in wanted}
    assert names <= pins


def test_constraints_name_torch_first():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    first = next(line for line in lines if line and not line.startswith("#"))
    assert first.startswith("torch==")


def test_parallel_test_processes_use_one_thread_each():
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("a single process uses all threads")
    assert torch.get_num_threads() == 1

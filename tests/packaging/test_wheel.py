"""The wheel contains the packages, and its command works."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    for name in filter(None, listed):
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_file():
            target.write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, copy],
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def test_wheel_holds_only_the_two_packages(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "segnetr",
        "hybrid_backbones",
    }


def test_wheel_holds_every_recipe_and_module(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    recipes = {f"segnetr/{path.relative_to(ROOT)}" for path in ROOT.glob("configs/**/*.yaml")}
    commands = {f"segnetr/{path.relative_to(ROOT)}" for path in ROOT.glob("cli/*.py")}
    modules = {
        str(path.relative_to(ROOT))
        for folder in ("segnetr", "hybrid_backbones")
        for path in (ROOT / folder).rglob("*.py")
    }
    templates = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "segnetr" / "outputs" / "reports" / "templates").iterdir()
    }
    assert len(templates) >= 6
    assert recipes | commands | modules | templates <= names
    assert {"segnetr/py.typed", "hybrid_backbones/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_installed_command_works_from_any_folder(wheel: Path, tmp_path: Path):
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    site = next((venv / "lib").glob("python*/site-packages"))
    # The dependencies of this environment, without its editable installation of the project.
    paths = [sysconfig.get_paths()["purelib"], *filter(None, [os.environ.get("EXTRA_SITE")])]
    (site / "dependencies.pth").write_text("\n".join(paths))
    subprocess.run(
        [
            venv / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--force-reinstall",
            wheel,
        ],
        check=True,
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shown = subprocess.run(
        [venv / "bin" / "segnetr", "models", "list", "--json"],
        cwd=elsewhere,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert '"segnetr_s"' in shown
    where = subprocess.run(
        [venv / "bin" / "python", "-c", "import segnetr.cli; print(segnetr.cli.__file__)"],
        cwd=elsewhere,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert str(site) in where

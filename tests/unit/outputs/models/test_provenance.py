"""Provenance of a run: enough to repeat it, nothing personal."""

import getpass
import json
import platform
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segnetr import __version__
from segnetr.outputs.models.provenance import (
    collect_provenance,
    collect_versions,
    read_git_state,
    read_processor_name,
)


def test_provenance_is_json_with_all_fields() -> None:
    facts = json.loads(json.dumps(collect_provenance(), allow_nan=False))
    assert (
        facts["versions"]["torch"] == torch.__version__.split("+")[0]
        or facts["versions"]["torch"] == torch.__version__
    )
    assert facts["versions"]["python"] == platform.python_version()
    assert facts["versions"]["segnetr"] == __version__
    assert "not installed" not in facts["versions"].values()
    assert facts["threads"] == torch.get_num_threads()
    assert facts["processor"]
    assert facts["device"] == "cpu"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", facts["started"])


def test_command_is_recorded_without_the_folder_of_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/somebody/.venv/bin/segnetr", "train", "--seed", "1"])
    assert collect_provenance()["command"] == ["segnetr", "train", "--seed", "1"]


def test_provenance_does_not_contain_host_user_or_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["segnetr"])
    monkeypatch.setattr(socket, "gethostname", lambda: pytest.fail("asked for the host's name"))
    values = json.dumps(list(collect_provenance().values()))
    assert platform.node() not in values
    assert str(Path.home()) + "/" not in values
    assert f"/{getpass.getuser()}/" not in values


def test_missing_package_is_recorded_without_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "segnetr.outputs.models.provenance._PACKAGES", ("numpy", "no-such-package-here")
    )
    versions = collect_versions()
    assert versions["no-such-package-here"] == "not installed"
    assert versions["numpy"][0].isdigit()


def test_processor_name_comes_from_the_system(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: A Chip @ 2 GHz\n")
    assert read_processor_name(cpuinfo) == "A Chip @ 2 GHz"
    cpuinfo.write_bytes(b"Features\t: fp\xff asimd\n")
    assert read_processor_name(cpuinfo) == (platform.processor() or platform.machine())
    assert read_processor_name(tmp_path / "missing")


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_commit_and_changes_of_a_checkout_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "-q")
    assert read_git_state(tmp_path) == (None, False)
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "one")
    assert read_git_state(tmp_path) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "a").write_text("2")
    assert read_git_state(tmp_path) == (git("rev-parse", "HEAD"), True)
    (tmp_path / "inside").mkdir()
    assert read_git_state(tmp_path / "inside") == (None, None)


def test_checkout_without_git_raises_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert read_git_state(tmp_path) == (None, None)


def test_failing_git_raises_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()

    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("git", 5)

    monkeypatch.setattr(subprocess, "run", hang)
    assert read_git_state(tmp_path) == (None, None)

"""Record the versions, the machine and the command of a run, so that it can be repeated.

The record does not name the host, the user, or folders that are not part of the command.
"""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from segnetr import __version__

_PACKAGES = (
    "torch", "monai", "numpy", "albumentations", "opencv-python-headless", "pillow", "nibabel",
    "SimpleITK", "safetensors", "accelerate", "pydantic", "scipy",
)  # fmt: skip
_GIT_SECONDS = 5


def collect_provenance(*, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Return the properties of this process as plain data for JSON.

    Args:
        device: Device of the network.

    Returns:
        `started` (UTC), `command` (as typed, the program without its folder), `versions`,
        `platform`, the name of the CPU, `cores`, `threads`, `device`, `git_commit` and
        `git_changed` (both None if the source is not a git checkout).
    """
    commit, changed = read_git_state(Path(__file__).resolve().parents[3])
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": collect_versions(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": read_processor_name(),  # words: allow (persisted key)
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": _describe_device(torch.device(device)),
        "git_commit": commit,
        "git_changed": changed,
    }


def collect_versions() -> dict[str, str]:
    """Return the versions of Python, of this application and of its numerical packages."""
    versions = {"python": platform.python_version(), "segnetr": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def read_processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the CPU, or its architecture if the name is unknown.

    Args:
        cpuinfo: File in which Linux describes the CPU.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, name = line.partition(":")
        if key.strip() == "model name" and name.strip():
            return name.strip()
    return platform.processor() or platform.machine()  # words: allow


def read_git_state(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit of a checkout, and whether tracked files differ from it.

    Args:
        root: Folder that contains `.git` if the source is a checkout.

    Returns:
        Both None without a checkout, without git, or if git fails.
    """
    # Only our own checkout: an installed package may be inside an unrelated one.
    if not (root / ".git").exists():
        return None, None
    commit = _run_git(root, "rev-parse", "HEAD")
    changes = _run_git(root, "status", "--porcelain", "--untracked-files=no")
    return commit or None, None if changes is None else bool(changes)


def _run_git(root: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            # --no-optional-locks: do not interfere with git commands of the user.
            ["git", "--no-optional-locks", *arguments],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return result.stdout.strip()


def _describe_device(device: torch.device) -> str:
    if device.type == "cuda" and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)

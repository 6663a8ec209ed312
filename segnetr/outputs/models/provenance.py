"""What made a run: versions, machine and command, for people who want to repeat it.

Nothing here names the machine, the user or a folder that the user did not type.
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
    """Collect what is known about this process as plain data for JSON.

    Args:
        device: Where the network runs.

    Returns:
        `started` (UTC), `command` (as typed, the program without its folder), `versions`,
        `platform`, `processor`, `cores`, `threads`, `device`, `git_commit` and `git_changed`
        (both None where the source is no git checkout).
    """
    commit, changed = read_git_state(Path(__file__).resolve().parents[3])
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": collect_versions(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": read_processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": _describe_device(torch.device(device)),
        "git_commit": commit,
        "git_changed": changed,
    }


def collect_versions() -> dict[str, str]:
    """Give the versions of Python, of this application and of the packages it computes with."""
    versions = {"python": platform.python_version(), "segnetr": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def read_processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Give the processor's name as the system knows it; its architecture where it knows none.

    Args:
        cpuinfo: Where Linux describes the processor.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, name = line.partition(":")
        if key.strip() == "model name" and name.strip():
            return name.strip()
    return platform.processor() or platform.machine()


def read_git_state(root: Path) -> tuple[str | None, bool | None]:
    """Give the commit of a checkout and whether tracked files differ from it.

    Args:
        root: The folder that holds `.git` where the source is a checkout.

    Returns:
        Both None without a checkout, without git, or where git does not answer.
    """
    # Only our own checkout: an installed package may lie below somebody else's.
    if not (root / ".git").exists():
        return None, None
    commit = _ask_git(root, "rev-parse", "HEAD")
    changes = _ask_git(root, "status", "--porcelain", "--untracked-files=no")
    return commit or None, None if changes is None else bool(changes)


def _ask_git(root: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            # --no-optional-locks: a look must not disturb a git command of the user's.
            ["git", "--no-optional-locks", *arguments],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return answer.stdout.strip()


def _describe_device(device: torch.device) -> str:
    if device.type == "cuda" and torch.cuda.is_available():
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)

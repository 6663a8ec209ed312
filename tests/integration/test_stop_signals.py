"""A signal to a process or to its group stops a run cleanly; the state is saved."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129, "SIGUSR1": 138, "SIGUSR2": 140}
ALWAYS = {("SIGTERM", "group", 2), ("SIGHUP", "group", 1), ("SIGUSR1", "process", 0)}
CASES = [
    pytest.param(
        *case, marks=() if case in ALWAYS else pytest.mark.exhaustive, id="-".join(map(str, case))
    )
    for case in [
        (name, target, workers)
        for name in CODES
        for target in ("process", "group")
        for workers in (0, 1, 2, 4)
    ]
]


def start(folder: Path, images: Path, tiny: list[str], *flags: object) -> "subprocess.Popen[str]":
    """Start a training in a process group of its own."""
    command = [
        *(sys.executable, "-m", "segnetr.cli", "train", "--dataset", "isic2018"),
        *("--data-dir", str(images), *tiny),
        *("--steps", "400", "--set", "train.save_every=1000", "--quiet", "--out", str(folder)),
        *map(str, flags),
    ]
    # Shells and pytest may ignore some of these signals, and a child would inherit that.
    return subprocess.Popen(
        [sys.executable, "-c", RESET, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


RESET = (
    "import os, signal, sys\n"
    f"for name in {sorted(CODES)}:\n"
    "    signal.signal(getattr(signal, name), signal.SIG_DFL)\n"
    "os.execv(sys.argv[1], sys.argv[1:])\n"
)


def send(process: "subprocess.Popen[str]", name: str, target: str) -> str:
    """Send a signal, and return what the process writes until it ends."""
    number = getattr(signal, name)
    if target == "group":
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    return process.communicate(timeout=120)[1]


def wait_for_steps(folder: Path, process: "subprocess.Popen[str]", steps: int) -> None:
    log, limit = folder / "metrics.jsonl", time.monotonic() + 300
    while not log.exists() or log.read_text().count("\n") < steps:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.mark.parametrize(("name", "target", "workers"), CASES)
def test_a_signal_saves_the_state_at_the_next_step(tmp_path, images, tiny, name, target, workers):
    run = tmp_path / "run"
    process = start(run, images, tiny, "--workers", workers)
    wait_for_steps(run, process, 3)
    errors = send(process, name, target)
    assert process.returncode == CODES[name], errors
    assert "Traceback" not in errors
    assert (run / "checkpoints" / "last" / "MANIFEST.sha256").is_file()
    steps = (run / "metrics.jsonl").read_text().count("\n")
    assert steps < 400
    again = start(run, images, tiny, "--workers", workers, "--resume")
    wait_for_steps(run, again, steps + 2)
    errors = send(again, "SIGTERM", "group")
    assert again.returncode == 143, errors


def test_second_training_in_the_same_folder_is_refused(tmp_path, images, tiny, command):
    run = tmp_path / "run"
    process = start(run, images, tiny)
    wait_for_steps(run, process, 2)
    flags = ["--dataset", "isic2018", "--data-dir", images, *tiny, "--out", run, "--quiet"]
    done = command("train", *flags)
    assert done.returncode == 2
    assert f"is in use by process {process.pid} on" in done.stderr
    send(process, "SIGTERM", "process")
    assert process.returncode == 143
    assert not list(run.glob(".*"))


@pytest.mark.parametrize("seconds", [0.3, 2.0])
@pytest.mark.parametrize("name", CODES)
def test_a_signal_in_the_first_seconds_leaves_no_traceback(tmp_path, images, tiny, name, seconds):
    process = start(tmp_path / "run", images, tiny, "--workers", 2)
    time.sleep(seconds)
    errors = send(process, name, "group")
    assert "Traceback" not in errors
    # Before the first line of Python, the system ends the process itself.
    assert process.returncode in (CODES[name], -getattr(signal, name)), errors

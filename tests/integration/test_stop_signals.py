"""A signal to a process or to its group stops a run cleanly; the state is saved."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

CODES = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129, "SIGUSR1": 138, "SIGUSR2": 140}
ALWAYS = {("SIGTERM", "group", 2)}
TORCHRUN = {("SIGTERM", "group")}
EARLY = {("SIGINT", 0.3), ("SIGTERM", 2.0)}
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


def start(
    folder: Path, images: Path, tiny: list[str], *flags: object, launcher: Sequence[str] = ()
) -> "subprocess.Popen[str]":
    """Start a training in a process group of its own."""
    command = [
        *(launcher or (sys.executable,)),
        *("-m", "segnetr.cli", "train", "--dataset", "isic2018", "--data-dir", str(images), *tiny),
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


# Runs a process of torchrun and writes its exit code to a file.
RECORD = (
    "import os, pathlib, signal, subprocess, sys\n"
    f"for name in {sorted(CODES)}:\n"
    "    signal.signal(getattr(signal, name), lambda *_: None)\n"
    "child = subprocess.Popen(sys.argv[1:])\n"
    "code = child.wait()\n"
    "rank = os.environ['RANK']\n"
    "pathlib.Path(os.environ['EXIT_CODES'], f'rank{rank}').write_text(str(code))\n"
    "sys.exit(code)\n"
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


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        pytest.param(
            name, seconds, marks=() if (name, seconds) in EARLY else pytest.mark.exhaustive
        )
        for name in CODES
        for seconds in (0.3, 1.0, 2.0, 4.0)
    ],
)
def test_a_signal_in_the_first_seconds_leaves_no_traceback(tmp_path, images, tiny, name, seconds):
    process = start(tmp_path / "run", images, tiny, "--workers", 2)
    time.sleep(seconds)
    errors = send(process, name, "group")
    assert "Traceback" not in errors
    # Before the first line of Python, the system ends the process itself.
    assert process.returncode in (CODES[name], -getattr(signal, name)), errors


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("name", "target"),
    [
        pytest.param(
            name, target, marks=() if (name, target) in TORCHRUN else pytest.mark.exhaustive
        )
        for name in CODES
        for target in ("process", "group")
    ],
)
def test_a_signal_stops_all_processes_of_torchrun(
    tmp_path, images, tiny, name, target, monkeypatch
):
    monkeypatch.setenv("EXIT_CODES", str(tmp_path))
    run = tmp_path / "run"
    launcher = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("--signals-to-handle", ",".join([*CODES, "SIGQUIT"])),
        *("--no-python", sys.executable, "-c", RECORD, sys.executable),
    ]
    process = start(run, images, tiny, "--workers", 1, launcher=launcher)
    wait_for_steps(run, process, 3)
    errors = send(process, name, target)
    assert [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)] == [str(CODES[name])] * 2
    # The launcher reports the signal with a traceback of its own.
    assert "segnetr" not in errors.replace(str(tmp_path), "").partition("Traceback")[2]
    assert (run / "checkpoints" / "last" / "MANIFEST.sha256").is_file()
    assert (run / "metrics.jsonl").read_text().count("\n") < 400


def test_the_slurm_script_of_the_documentation_requeues_and_resumes(tmp_path, images, tiny):
    text = (ROOT / "docs" / "cluster.md").read_text()
    script = text.partition("```bash\n#!/bin/bash")[2].partition("```")[0]
    flags = " ".join([*tiny, "--steps", "12", "--set", "train.save_every=100", "--quiet"])
    script = script.replace("data/isic2018", f"{images} {flags}").replace("runs/isic2018", "run")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, content in {
        "srun": 'echo $$ > pid; exec "$@"',
        "scontrol": 'echo "$@" >> requests',
        "segnetr": f'exec {sys.executable} -m segnetr.cli "$@"',
    }.items():
        (tools / name).write_text(f"#!/bin/bash\n{content}\n")
        (tools / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "17",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", RESET, "/bin/bash", "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as job:
        wait_for_steps(tmp_path / "run", job, 2)
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGUSR1)
        assert job.wait(timeout=120) == 138
    assert (tmp_path / "requests").read_text() == "requeue 17\n"
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=False, timeout=300)
    assert done.returncode == 0
    assert (tmp_path / "requests").read_text() == "requeue 17\n"
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()

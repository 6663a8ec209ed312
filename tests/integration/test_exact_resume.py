"""Test that a run killed at any moment and resumed equals an uninterrupted run exactly."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

SCRIPT = Path(__file__).parents[1] / "support" / "engine_run.py"
STEPS = 9

pytestmark = [pytest.mark.slow]


def start(out, *options, steps=STEPS):
    command = [sys.executable, "-W", "error", str(SCRIPT), str(out), str(steps), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def run(out, *options, steps=STEPS):
    with start(out, *options, steps=steps) as process:
        output, _ = process.communicate(timeout=200)
    return process.returncode, output


def assert_same_run(one, other):
    for name in ("metrics.jsonl", "metrics.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    for folder, name in (
        ("last", "model"), ("last", "average"), ("last", "optimizer"), ("best", "model"),
    ):  # fmt: skip
        path = Path("checkpoints") / folder / f"{name}.safetensors"
        first, second = load_file(one / path), load_file(other / path)
        assert first.keys() == second.keys()
        assert [k for k in first if first[k].tobytes() != second[k].tobytes()] == []
    random_state = Path("checkpoints/last/random.json")
    assert (one / random_state).read_bytes() == (other / random_state).read_bytes()


def has_checkpoint(out):
    return any((out / "checkpoints" / name).exists() for name in ("last", "previous"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken") / "run"
    code, output = run(out)
    assert code == 0, output
    assert "stopped done" in output
    return out


def test_run_killed_at_a_step_and_during_a_save_equals_the_uninterrupted_run(unbroken, tmp_path):
    out = tmp_path / "run"
    # Step 3 is between the checkpoints of steps 2 and 4. The fourth write of the next start is
    # part of the checkpoint of step 4.
    assert run(out, "--kill-at-step", "3")[0] == -signal.SIGKILL
    assert run(out, "--resume", "--kill-at-write", "14")[0] == -signal.SIGKILL
    assert list((out / "checkpoints").glob(".*.partial"))
    code, output = run(out, "--resume", "--workers", "2")
    assert code == 0, output
    assert_same_run(unbroken, out)
    assert not list((out / "checkpoints").glob(".*"))


@pytest.mark.exhaustive
@pytest.mark.parametrize("workers", ["0", "2"])
def test_run_killed_at_random_moments_equals_the_uninterrupted_run(unbroken, tmp_path, workers):
    out, dice = tmp_path / "run", random.Random(f"killed {workers}")
    for _ in range(4):
        state = out / "checkpoints/last/state.json"
        done = json.loads(state.read_text())["state"]["step"] if state.exists() else 0
        kills = [
            ("--kill-at-step", dice.randint(done + 1, STEPS)),
            # At least eight files are written between any checkpoint and the end.
            ("--kill-at-write", dice.randint(1, 8)),
        ]
        kind, moment = dice.choice(kills)
        resume = ["--resume"] if has_checkpoint(out) else []
        code, output = run(out, "--workers", workers, *resume, kind, str(moment))
        assert code == -signal.SIGKILL, output
    code, output = run(out, "--workers", workers, *["--resume"] * has_checkpoint(out))
    assert code == 0, output
    assert_same_run(unbroken, out)


@pytest.mark.parametrize(
    ("number", "word"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")]
)
def test_signal_saves_a_checkpoint_and_the_run_can_be_resumed(unbroken, tmp_path, number, word):
    out = tmp_path / "run"
    with start(out, "--slow", "0.3", "--workers", "2") as process:
        for line in process.stdout:
            if line.strip() == "step 3":
                process.send_signal(number)
    assert process.returncode == 0
    last = json.loads((out / "checkpoints/last/state.json").read_text())
    assert 3 <= last["state"]["step"] < STEPS
    assert word in (out / "log.txt").read_text()
    code, output = run(out, "--resume")
    assert code == 0, output
    assert_same_run(unbroken, out)


def test_file_size_limit_is_a_one_line_error_and_leaves_complete_checkpoints(tmp_path):
    out = tmp_path / "run"
    assert run(out, "--kill-at-step", "5")[0] == -signal.SIGKILL
    # Larger than the logs and smaller than the random state of a checkpoint.
    code, output = run(out, "--resume", "--limit-file-size", "6000")
    assert code == 1, output
    lines = [line for line in output.splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert "cannot write" in lines[0]
    assert "Traceback" not in output
    code, output = run(out, "--resume")
    assert code == 0, output
    assert f"resumed at step {4}" in output


def test_loaders_of_the_application_resume_exactly(tmp_path):
    """Repeat the test with the sampler, transforms and loaders of `segnetr train`."""
    pytest.importorskip("segnetr.data.loading.loaders", reason="the data pipeline is not here yet")
    script = SCRIPT.with_name("engine_run_loaders.py")
    outcomes = {}
    for name, starts in {"unbroken": [("0", "0")], "broken": [("4", "2"), ("0", "2")]}.items():
        out = tmp_path / name
        for number, (stop_at, workers) in enumerate(starts):
            command = [sys.executable, "-W", "error", str(script), str(out), stop_at, workers]
            done = subprocess.run(
                [*command, *(["--resume"] if number else [])],
                capture_output=True, text=True, check=False, timeout=200,
                env={**os.environ, "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"},
            )  # fmt: skip
            expected = -signal.SIGKILL if stop_at != "0" else 0
            assert done.returncode == expected, done.stdout + done.stderr
        outcomes[name] = out
    assert_same_run(outcomes["unbroken"], outcomes["broken"])

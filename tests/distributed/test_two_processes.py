"""Two processes over gloo, started by torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from numpy.testing import assert_allclose
from safetensors.numpy import load_file

SCRIPT = Path(__file__).parents[1] / "support" / "engine_run.py"

pytestmark = [pytest.mark.distributed]


def run(out, *options, processes):
    launcher = []
    if processes > 1:
        launcher = [
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
        ]
    command = [sys.executable, *launcher, str(SCRIPT), str(out), "6", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=200
    )


def weights_of(out, name="model"):
    return load_file(out / "checkpoints/last" / f"{name}.safetensors")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "run"
    done = run(out, "--plain", "--dump", processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


def test_both_processes_end_with_the_same_weights(two):
    out, _ = two
    first, second = (load_file(out.with_name(f"rank{rank}.safetensors")) for rank in (0, 1))
    assert [name for name in first if first[name].tobytes() != second[name].tobytes()] == []
    assert any(name.startswith("average.") for name in first)


def test_only_rank_zero_writes_and_prints(two):
    out, output = two
    assert output.count("step 6\n") == 1
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in steps if r["phase"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert not list((out / "checkpoints").glob(".*"))
    state = json.loads((out / "checkpoints/last/random.json").read_text())
    assert len(state) == 2


def test_two_processes_equal_one_with_two_passes(two, tmp_path):
    done = run(tmp_path / "one", "--plain", "--accumulate", "2", processes=1)
    assert done.returncode == 0, done.stdout + done.stderr
    one, other = weights_of(tmp_path / "one"), weights_of(two[0])
    for name, weight in one.items():
        assert_allclose(weight, other[name], rtol=1e-4, atol=1e-6)


def test_unfrozen_encoder_is_trained_equally_by_both_processes(tmp_path):
    options = ("--plain", "--freeze", "1", "--batch-size", "2")
    done = run(tmp_path / "two" / "run", *options, "--dump", processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(tmp_path / "one", *options, "--accumulate", "2", processes=1)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (load_file(tmp_path / "two" / f"rank{rank}.safetensors") for rank in (0, 1))
    assert [name for name in first if first[name].tobytes() != second[name].tobytes()] == []
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two" / "run")
    for name, weight in one.items():
        assert_allclose(weight, two[name], rtol=1e-4, atol=1e-6)


def test_two_processes_resume_bit_exactly_with_dropout_and_batch_norm(tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    assert run(unbroken, processes=2).returncode == 0
    assert run(broken, "--kill-at-step", "3", processes=2).returncode != 0
    done = run(broken, "--resume", processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("model", "average", "optimizer"):
        first, second = weights_of(unbroken, name), weights_of(broken, name)
        assert [key for key in first if first[key].tobytes() != second[key].tobytes()] == []
    assert (unbroken / "metrics.jsonl").read_bytes() == (broken / "metrics.jsonl").read_bytes()


def test_resume_with_another_number_of_processes_is_refused(two):
    done = run(two[0], "--plain", "--resume", processes=1)
    assert done.returncode == 2
    assert "processes were 2, now 1" in done.stdout


def test_processes_that_do_not_form_one_group_are_refused():
    """Simulate accelerate on a CPU without our setting: every process is rank 0."""
    code = (
        "import accelerate, segnetr.engine.training.runtime as r\n"
        "class Lone:\n"
        "    process_index, num_processes = 0, 1\n"
        "accelerate.Accelerator = lambda **_: Lone()\n"
        "try:\n"
        "    r.Runtime('cpu')\n"
        "except r.SegNetrError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env={**os.environ, "WORLD_SIZE": "2"},
    )  # fmt: skip
    assert "torchrun started 2 processes, but this one sees 1" in done.stdout

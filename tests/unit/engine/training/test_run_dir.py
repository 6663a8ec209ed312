import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch

from segnetr.engine.training.checkpoint import (
    BestWeights,
    Checkpoint,
    TrainState,
    describe_changes,
    read_best,
    read_run_checkpoint,
    read_tensors,
    write_tensors,
)
from segnetr.engine.training.random_state import capture_random
from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import ModelFileError, UsageError, WriteError
from segnetr.storage.manifest import write_manifest


def make_checkpoint(step: int = 3) -> Checkpoint:
    return Checkpoint(
        state=TrainState(step=step, best_score=0.1 + 0.2, best_step=2, without_gain=1, seconds=4.5),
        identity={"config": "abc"},
        weights={
            "w": torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
            "count": torch.tensor(7),
            "half": torch.randn(5).bfloat16(),
        },
        average=None,
        optimizer={"exp_avg.w": torch.randn(4, 3, 2, 2)},
        scaler={"scale": 65536.0, "_growth_tracker": 3},
        random=(capture_random(),),
        threads=1,
    )


def assert_same_tensors(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert torch.equal(one[name], other[name])


def test_checkpoint_round_trip_is_exact(tmp_path):
    run, written = RunDir(tmp_path / "run"), make_checkpoint()
    run.create()
    run.save_checkpoint(written)
    found, message = run.load_checkpoint()
    assert message is None
    assert (found.state, found.identity, found.scaler) == (
        written.state, written.identity, written.scaler,
    )  # fmt: skip
    assert_same_tensors(found.weights, written.weights)
    assert_same_tensors(found.optimizer, written.optimizer)
    assert found.average is None
    assert torch.equal(found.random[0].torch_cpu, written.random[0].torch_cpu)
    assert found.random[0].python == written.random[0].python
    assert found.random[0].numpy == written.random[0].numpy


def test_tensors_of_any_layout_and_in_shared_memory_are_written(tmp_path):
    whole = torch.randn(6, 4, 3, 3)
    written = {
        "one": whole,
        "same": whole,
        "first part": whole[:2],
        "last part": whole[2:],
        "turned": whole.transpose(0, 1),
        "channels last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "learned": torch.nn.Parameter(torch.randn(3)),
        "number": torch.tensor(3),
        "empty": torch.zeros(0),
        "empty too": torch.zeros(0, 2),
    }
    parts = {name: whole[at] for name, at in (("a", slice(1, 3)), ("b", slice(3, 6)))}
    for number, tensors in enumerate((written, parts)):
        path = tmp_path / f"{number}.safetensors"
        write_tensors(path, tensors)
        found = read_tensors(path)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_only_the_last_and_the_previous_checkpoint_are_kept(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    for step in (1, 2, 3):
        run.save_checkpoint(make_checkpoint(step))
    assert read_run_checkpoint(run.last).state.step == 3
    assert read_run_checkpoint(run.previous).state.step == 2
    assert {path.name for path in run.checkpoints.iterdir()} == {"last", "previous"}


def test_best_weights_are_replaced(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    for step in (1, 2):
        weights = {"w": torch.full((2,), float(step))}
        run.save_best(BestWeights(weights=weights, step=step, score=0.5, identity={"a": "b"}))
    best = run.load_best()
    assert (best.step, best.score, best.identity) == (2, 0.5, {"a": "b"})
    assert best.weights["w"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize("name", ["state.json", "random.json", "model.safetensors"])
def test_changed_byte_in_any_file_is_rejected(tmp_path, name):
    run = RunDir(tmp_path / "run")
    run.create()
    run.save_checkpoint(make_checkpoint())
    data = bytearray((run.last / name).read_bytes())
    data[len(data) // 2] ^= 4
    (run.last / name).write_bytes(data)
    with pytest.raises(ModelFileError, match=name):
        read_run_checkpoint(run.last)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state.json", b'{"format": 99}', "format 99"),
        ("state.json", b'{"format": 1}', "not a checkpoint of segnetr"),
        ("state.json", b"[]", "format None"),
        ("state.json", b"\xff\xfe", "cannot be read"),
        ("random.json", b"[{}]", "not a checkpoint of segnetr"),
        ("model.safetensors", b"\x80\x04cposix\nsystem\n", "not a safetensors file"),
    ],
)
def test_invalid_content_with_a_valid_manifest_is_a_one_line_error(
    tmp_path, name, content, message
):
    run = RunDir(tmp_path / "run")
    run.create()
    run.save_checkpoint(make_checkpoint())
    (run.last / name).write_bytes(content)
    write_manifest(run.last)
    with pytest.raises(ModelFileError, match=message) as caught:
        read_run_checkpoint(run.last)
    assert "\n" not in str(caught.value)


def test_error_names_missing_best_weights(tmp_path):
    with pytest.raises(ModelFileError, match="best"):
        read_best(tmp_path / "best")


def test_folder_rejects_a_second_run_and_a_resume_without_a_checkpoint(tmp_path):
    run = RunDir(tmp_path / "run")
    with pytest.raises(UsageError, match="no checkpoint to resume"):
        run.create(resume=True)
    run.create()
    run.create()  # a run that ended before its first checkpoint can be started again
    run.save_checkpoint(make_checkpoint())
    run.create(resume=True)
    with pytest.raises(UsageError, match="--resume"):
        run.create()


def test_folder_without_write_permission_gives_a_one_line_error(tmp_path, monkeypatch):
    run = RunDir(tmp_path / "run")

    def refuse(path, **_):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(type(run.path), "touch", refuse)
    with pytest.raises(WriteError, match="Read-only file system") as caught:
        run.create()
    assert "\n" not in str(caught.value)


def test_error_lists_identity_changes_with_both_values():
    assert describe_changes({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == [
        "b was 2, now 3",
        "c was not given, now 4",
    ]


KILLED_SAVER = textwrap.dedent(
    """
    import os, signal, sys

    import segnetr.engine.training.run_dir as run_dir
    from segnetr.storage.manifest import verify_manifest

    def deadly(function):
        def call(*arguments, **options):
            global calls
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)
        return call

    def newest_whole():
        found = []
        for folder in (run.last, run.previous):
            if folder.exists():
                verify_manifest(folder)
                found.append(int((folder / "v").read_text()))
        return max(found)

    run_dir.write_checkpoint = lambda folder, checkpoint: (folder / "v").write_text(checkpoint)
    run = run_dir.RunDir(sys.argv[1])
    run.create()
    run.save_checkpoint("-1")
    run.save_checkpoint("0")
    for kill_at in range(1, 100):
        before = newest_whole()
        child = os.fork()
        if child == 0:
            calls = 0
            for name in ("rename", "rmdir", "unlink", "replace", "fsync"):
                setattr(os, name, deadly(getattr(os, name)))
            run.save_checkpoint(str(kill_at))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        run.create(resume=True)
        assert newest_whole() in (before, kill_at), (newest_whole(), before, kill_at)
        if status == 0:
            assert newest_whole() == kill_at
            print(kill_at - 1, "kills")
            break
    """
)


@pytest.mark.slow
def test_killed_save_leaves_the_newest_complete_checkpoint(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED_SAVER, str(tmp_path / "run")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 8


def test_checkpoint_is_frozen():
    with pytest.raises(AttributeError):
        make_checkpoint().threads = 2
    assert replace(make_checkpoint(), threads=2).threads == 2

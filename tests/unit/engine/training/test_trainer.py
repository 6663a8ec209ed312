# ruff: noqa: ARG002, ARG005 - observers and tasks take what they are given
import importlib.util
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from segnetr.config.schema.segmentation import TrainConfig
from segnetr.engine.training import checkpoint as checkpoint_module
from segnetr.engine.training.checkpoint import read_run_checkpoint
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.tasks import SegmentationTask
from segnetr.errors import ModelFileError, SegNetrError, UsageError, WriteError
from segnetr.losses import build_loss

_PATH = Path(__file__).parents[3] / "support" / "engine_run.py"
_SPEC = importlib.util.spec_from_file_location("engine_run", _PATH)
engine_run = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(engine_run)

CONFIG = TrainConfig(
    steps=6, batch_size=2, warmup_steps=2, validate_every=2, save_every=2, device="cpu"
)


class Recorder:
    """Record all events and run an action at a step."""

    def __init__(self, **actions):
        self.messages, self.validations, self.steps, self._actions = [], [], [], actions

    def on_step(self, step, total, terms, rate):
        self.steps.append(step)
        self._actions.get(f"step_{step}", lambda: None)()

    def on_validation(self, step, scores, *, best):
        self.validations.append((step, scores["dice"], best))

    def on_message(self, text):
        self.messages.append(text)


def train(out, config=CONFIG, *, resume=False, **options):
    return engine_run.make_trainer(out, config, **options).fit(resume=resume)


def tensors_of(out, folder="last"):
    saved = read_run_checkpoint(out / "checkpoints" / folder)
    return {**{f"w.{k}": v for k, v in saved.weights.items()},
            **{f"a.{k}": v for k, v in (saved.average or {}).items()},
            **{f"o.{k}": v for k, v in saved.optimizer.items()}}  # fmt: skip


def assert_same_run(one, other):
    first, second = tensors_of(one), tensors_of(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    for name in ("metrics.jsonl", "metrics.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def records_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def interrupt(number=signal.SIGTERM):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.slow
def test_training_lowers_the_loss_and_reports_its_end(tmp_path):
    result = train(tmp_path / "run", replace(CONFIG, steps=60, lr=1e-2))
    losses = [record["total"] for record in records_of(tmp_path / "run") if "total" in record]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert (result.steps, result.stopped) == (60, "done")
    assert result.seconds > 0


def test_learning_rate_factors_apply_and_resume_exactly(tmp_path):
    weights = engine_run.make_network().state_dict()
    names = [name for name, _ in engine_run.make_network().named_parameters()]
    options = {"lr_factors": {names[0]: 0.0, names[-1]: 0.25}}
    train(tmp_path / "run", **options)
    moved = read_run_checkpoint(tmp_path / "run" / "checkpoints" / "last").weights
    assert torch.equal(moved[names[0]], weights[names[0]])
    assert not torch.equal(moved[names[1]], weights[names[1]])
    recorder = Recorder(step_3=interrupt())
    train(tmp_path / "stopped", progress=recorder, **options)
    train(tmp_path / "stopped", resume=True, **options)
    assert_same_run(tmp_path / "run", tmp_path / "stopped")


def test_best_checkpoint_holds_the_best_validated_weights(tmp_path):
    recorder = Recorder()
    out = tmp_path / "run"
    result = train(out, replace(CONFIG, steps=12, lr=0.05), progress=recorder)
    best_step, best_score, _ = max(recorder.validations, key=lambda entry: entry[1])
    assert (result.best_step, result.best_score) == (best_step, best_score)
    best = RunDir(out).load_best()
    assert (best.step, best.score) == (best_step, best_score)
    model = engine_run.make_network()
    model.load_state_dict(best.weights)
    task = SegmentationTask(build_loss("ce", num_classes=2), num_classes=2)
    batches = [engine_run.collate(list(range(2000, 2006)))]
    assert task.validate(model.eval(), batches)["dice"] == pytest.approx(best_score, abs=1e-6)


def test_best_weights_are_averaged_if_there_is_an_average(tmp_path):
    for decay in (0.0, 0.9):
        out = tmp_path / str(decay)
        train(out, replace(CONFIG, steps=2, ema_decay=decay))
        saved, best = read_run_checkpoint(out / "checkpoints/last"), RunDir(out).load_best()
        expected = saved.weights if saved.average is None else saved.average
        assert (saved.average is None) == (decay == 0)
        assert all(torch.equal(best.weights[name], expected[name]) for name in expected)


def test_lowest_score_is_best_if_the_task_minimizes_it(tmp_path):
    task = SegmentationTask(build_loss("ce", num_classes=2), num_classes=2)
    task.monitor, task.higher_is_better = "loss", False
    result = train(tmp_path / "run", replace(CONFIG, lr=0.05), task=task)
    losses = [r["loss"] for r in records_of(tmp_path / "run") if r["phase"] == "validation"]
    assert result.best_score == min(losses)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_signal_saves_after_the_step_and_the_run_resumes_exactly(tmp_path, number, step):
    train(tmp_path / "unbroken")
    broken = tmp_path / "broken"
    before = signal.getsignal(number)
    result = train(broken, progress=Recorder(**{f"step_{step}": interrupt(number)}))
    assert signal.getsignal(number) is before
    assert result.stopped == {2: "interrupted", 15: "terminated"}[number]
    assert result.steps == step
    assert read_run_checkpoint(broken / "checkpoints/last").state.step == result.steps
    torch.rand(7)
    assert train(broken, resume=True).stopped == "done"
    assert_same_run(tmp_path / "unbroken", broken)


def test_signal_interrupts_a_validation_and_a_resume_repeats_it(tmp_path):
    train(tmp_path / "unbroken")
    broken = tmp_path / "broken"

    def batches():
        yield engine_run.collate([2000, 2001, 2002, 2003])
        os.kill(os.getpid(), signal.SIGTERM)
        yield engine_run.collate([2004, 2005])

    result = train(broken, validation_batches=batches)
    assert (result.stopped, result.steps, result.best_score) == ("terminated", 2, None)
    train(broken, resume=True)
    assert_same_run(tmp_path / "unbroken", broken)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "ema_decay": 0.0},
        {"amp": "bf16", "optimizer": "adam"},
        {"accumulate": 2, "channels_last": False, "clip_norm": 0.0, "schedule": "constant"},
    ],
    ids=",".join,
)
def test_run_with_other_settings_resumes_exactly(tmp_path, changes):
    config = replace(CONFIG, **changes)
    train(tmp_path / "unbroken", config)
    train(tmp_path / "broken", config, progress=Recorder(step_3=interrupt()))
    train(tmp_path / "broken", config, resume=True)
    assert_same_run(tmp_path / "unbroken", tmp_path / "broken")


def test_opening_batches_and_validating_do_not_change_the_random_state(tmp_path):
    def noisy_validation():
        torch.rand(3)
        yield engine_run.collate([2000])

    def noisy_batches(step):
        torch.rand(step + 1)
        return engine_run.SyntheticBatches(step, 6 - step, 2)

    train(tmp_path / "quiet", replace(CONFIG, validate_every=6))
    train(tmp_path / "noisy", validation_batches=noisy_validation, train_batches=noisy_batches)
    assert_tensors = tensors_of(tmp_path / "quiet"), tensors_of(tmp_path / "noisy")
    assert all(torch.equal(assert_tensors[0][k], assert_tensors[1][k]) for k in assert_tensors[0])


def test_gradient_accumulation_equals_one_large_batch(tmp_path):
    config = replace(CONFIG, steps=3, validate_every=3)
    train(tmp_path / "large", replace(config, batch_size=4), plain=True)
    train(tmp_path / "small", replace(config, accumulate=2), plain=True)
    one, other = tensors_of(tmp_path / "large"), tensors_of(tmp_path / "small")
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-6)


def test_new_run_rejects_a_folder_that_contains_a_run(tmp_path):
    train(tmp_path / "run")
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"--resume.*--out"):
        train(tmp_path / "run")
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_resume_without_a_checkpoint_is_rejected_and_creates_no_files(tmp_path):
    with pytest.raises(UsageError, match="no checkpoint to resume"):
        train(tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_resume_with_another_identity_lists_each_difference_with_both_values(tmp_path):
    train(tmp_path / "run", progress=Recorder(step_2=interrupt()))
    other = {"config": "c" * 8, "split": "66666666", "extra": "x"}
    with pytest.raises(UsageError, match="split was 55555555, now 66666666") as caught:
        train(tmp_path / "run", resume=True, identity=other)
    assert "extra was not given, now x" in str(caught.value)
    assert "config" not in str(caught.value)


def test_resume_of_a_finished_run_changes_nothing(tmp_path):
    first = train(tmp_path / "run")
    saved = (tmp_path / "run/checkpoints/last/MANIFEST.sha256").read_bytes()
    lines = (tmp_path / "run/metrics.jsonl").read_bytes()
    again = train(tmp_path / "run", resume=True)
    assert (again.steps, again.best_score, again.best_step) == (
        first.steps, first.best_score, first.best_step,
    )  # fmt: skip
    assert (tmp_path / "run/checkpoints/last/MANIFEST.sha256").read_bytes() == saved
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == lines


def flip_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_last_checkpoint_falls_back_to_the_previous_with_a_message(tmp_path, damage):
    train(tmp_path / "unbroken")
    out = tmp_path / "run"
    train(out, progress=Recorder(step_5=interrupt()))
    path = out / "checkpoints/last/optimizer.safetensors"
    if damage == "flip":
        flip_byte(path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.unlink()
    recorder = Recorder()
    train(out, resume=True, progress=recorder)
    assert any("optimizer.safetensors" in m and "previous" in m for m in recorder.messages)
    assert recorder.steps[0] == 5
    assert (out / "checkpoints/damaged_last").is_dir()
    assert_same_run(tmp_path / "unbroken", out)


def test_damaged_best_weights_are_discarded_and_selected_again(tmp_path):
    out = tmp_path / "run"
    train(out, progress=Recorder(step_3=interrupt()))
    flip_byte(out / "checkpoints/best/model.safetensors")
    recorder = Recorder()
    result = train(out, resume=True, progress=recorder)
    assert any("selected again" in message for message in recorder.messages)
    assert result.best_step in (4, 6)
    assert RunDir(out).load_best().step == result.best_step
    flip_byte(out / "checkpoints/best/model.safetensors")
    assert train(out, resume=True).best_step is None
    last = read_run_checkpoint(out / "checkpoints/last")
    weights = RunDir(out).load_final_weights(keep="best")
    assert all(torch.equal(weights[name], last.average[name]) for name in last.average)


def test_two_damaged_checkpoints_give_a_one_line_error(tmp_path):
    train(tmp_path / "run")
    for name in ("last", "previous"):
        flip_byte(tmp_path / "run/checkpoints" / name / "model.safetensors")
    with pytest.raises(ModelFileError, match="no undamaged checkpoint") as caught:
        train(tmp_path / "run", resume=True)
    assert "\n" not in str(caught.value)


def poisoned(value, step):
    """Return batches with an invalid image at a step."""

    def batches(start):
        for index, batch in enumerate(engine_run.SyntheticBatches(start, 6 - start, 2), start + 1):
            if index == step:
                batch["image"][1, 0, 3, 3] = value
            yield batch

    return batches


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_invalid_loss_stops_with_step_and_cases_and_keeps_the_checkpoint(tmp_path, value):
    out = tmp_path / "run"
    with pytest.raises(SegNetrError, match=r"loss .* step 4 \(cases case_6, case_7\)") as caught:
        train(out, train_batches=poisoned(value, 4))
    assert "\n" not in str(caught.value)
    assert read_run_checkpoint(out / "checkpoints/last").state.step == 2
    assert all(tensor.isfinite().all() for tensor in tensors_of(out).values())
    assert records_of(out)[-1]["step"] == 3
    train(tmp_path / "unbroken")
    train(out, resume=True)
    assert_same_run(tmp_path / "unbroken", out)


def test_invalid_gradient_with_a_finite_loss_stops_immediately(tmp_path):
    class Task(SegmentationTask):
        def loss(self, model, batch):
            terms = super().loss(model, batch)
            weight = next(model.parameters())
            return {"total": terms["total"] + (weight.sum() * 0).abs().sqrt()}

    task = Task(build_loss("ce", num_classes=2), num_classes=2)
    with pytest.raises(SegNetrError, match=r"gradient .* step 1 \(cases case_0, case_1\)"):
        train(tmp_path / "run", task=task)


def test_invalid_validation_score_stops_the_training(tmp_path):
    def batches():
        batch = engine_run.collate([2000])
        batch["image"][:] = float("nan")
        yield batch

    with pytest.raises(SegNetrError, match="validation at step 2"):
        train(tmp_path / "run", validation_batches=batches)


def test_training_without_validation_saves_the_weights_of_its_last_step(tmp_path):
    out = tmp_path / "run"
    result = train(out, replace(CONFIG, steps=5), validation_batches=None)
    assert (result.steps, result.best_score, result.best_step) == (5, None, None)
    last = read_run_checkpoint(out / "checkpoints/last")
    for keep in ("best", "last"):
        weights = RunDir(out).load_final_weights(keep=keep)
        assert all(torch.equal(weights[name], last.average[name]) for name in last.average)
    assert {record["phase"] for record in records_of(out)} == {"train"}


def test_patience_stops_a_training_without_improvement(tmp_path):
    constant = SimpleNamespace(
        monitor="dice",
        higher_is_better=True,
        loss=SegmentationTask(build_loss("ce", num_classes=2), num_classes=2).loss,
        validate=lambda model, batches: {"dice": 0.5},
    )
    result = train(tmp_path / "run", replace(CONFIG, steps=50, patience=2), task=constant)
    assert (result.stopped, result.steps, result.best_step) == ("patience", 6, 2)


def test_time_limit_stops_a_training_after_validation_and_checkpoint(tmp_path):
    result = train(tmp_path / "run", replace(CONFIG, max_minutes=1e-9))
    assert (result.stopped, result.steps, result.best_step) == ("max_minutes", 1, 1)
    assert read_run_checkpoint(tmp_path / "run/checkpoints/last").state.step == 1


def test_validation_and_saving_happen_once_per_epoch_by_default(tmp_path):
    recorder = Recorder()
    config = replace(CONFIG, steps=9, batch_size=3, validate_every=0, save_every=0)
    train(tmp_path / "run", config, progress=recorder)
    assert [step for step, *_ in recorder.validations] == [4, 8, 9]
    assert read_run_checkpoint(tmp_path / "run/checkpoints/previous").state.step == 8


@pytest.mark.parametrize("file", ["optimizer.safetensors", "model.safetensors"])
def test_full_disk_gives_a_one_line_error_and_keeps_the_older_checkpoint(
    tmp_path, monkeypatch, file
):
    out = tmp_path / "run"
    real = checkpoint_module.write_bytes

    def fill_disk(path, data):
        if path.name == file and len(records_of(out)) > 4:
            path.write_bytes(data[:10])
            raise OSError(28, "No space left on device", str(path))
        real(path, data)

    monkeypatch.setattr(checkpoint_module, "write_bytes", fill_disk)
    with pytest.raises(WriteError, match="No space left on device") as caught:
        train(out)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"last", "best"}
    assert read_run_checkpoint(out / "checkpoints/last").state.step == 2
    RunDir(out).load_best()
    train(out, resume=True)
    train(tmp_path / "unbroken")
    assert_same_run(tmp_path / "unbroken", out)


def test_run_folder_that_cannot_be_created_gives_a_one_line_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write") as caught:
        train(tmp_path / "file" / "run")
    assert "\n" not in str(caught.value)


def test_batches_that_end_early_are_an_error(tmp_path):
    with pytest.raises(SegNetrError, match="ended before step 3"):
        train(
            tmp_path / "run",
            train_batches=lambda step: iter(engine_run.SyntheticBatches(step, 2, 2)),
        )


def test_run_folder_contains_no_pickle(tmp_path):
    train(tmp_path / "run")
    kinds = {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()}
    kinds = {kind for kind in kinds if not kind[1:].isdecimal()}
    assert kinds <= {".safetensors", ".json", ".jsonl", ".csv", ".txt", ".sha256"}
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_torch_settings_are_restored(tmp_path):
    train(tmp_path / "run", replace(CONFIG, deterministic=True, steps=1))
    assert not torch.are_deterministic_algorithms_enabled()


def test_resume_with_another_number_of_threads_shows_a_message(tmp_path):
    train(tmp_path / "run", progress=Recorder(step_2=interrupt()))
    path = tmp_path / "run/checkpoints/last"
    saved = read_run_checkpoint(path)
    RunDir(tmp_path / "run").save_checkpoint(replace(saved, threads=saved.threads + 1))
    recorder = Recorder()
    train(tmp_path / "run", resume=True, progress=recorder)
    assert any("not to the last bit" in message for message in recorder.messages)


def test_checkpoint_of_another_network_is_rejected(tmp_path):
    train(tmp_path / "run", progress=Recorder(step_2=interrupt()))
    with pytest.raises(ModelFileError, match="of another network") as caught:
        train(tmp_path / "run", resume=True, plain=True)
    assert "\n" not in str(caught.value)


def test_training_without_cases_is_rejected(tmp_path):
    with pytest.raises(UsageError, match="no case for training"):
        engine_run.make_trainer(tmp_path / "run", CONFIG, cases=0)


@pytest.mark.slow
def test_compiled_training_is_close_to_plain_training(tmp_path):
    config = replace(CONFIG, steps=3, ema_decay=0.0)
    train(tmp_path / "plain", config, plain=True)
    train(tmp_path / "compiled", replace(config, compile=True), plain=True)
    one, other = tensors_of(tmp_path / "plain"), tensors_of(tmp_path / "compiled")
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-3, atol=1e-5)


def test_networks_weights_are_trained_in_place(tmp_path):
    model = engine_run.make_network()
    train(tmp_path / "run", network=model)
    saved = read_run_checkpoint(tmp_path / "run/checkpoints/last").weights
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())

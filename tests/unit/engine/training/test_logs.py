import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segnetr.engine.training.logs import MetricLog
from segnetr.engine.training.run_dir import RunDir


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "run")
    run.create()
    return run


def write(run, steps, start_step=0):
    with MetricLog(run, start_step=start_step) as log:
        for step in steps:
            log.write(step, "train", {"total": 1 / step, "lr": 0.1})
            if step % 2 == 0:
                log.write(step, "validation", {"dice": step / 10})
        log.sync()


def test_lines_contain_step_phase_and_values_in_full_precision(run):
    write(run, [3])
    record = json.loads(run.metrics_jsonl.read_text())
    assert record == {"step": 3, "phase": "train", "total": 1 / 3, "lr": 0.1}
    assert run.metrics_csv.read_text() == (
        f"step,phase,name,value\n3,train,total,{1 / 3!r}\n3,train,lr,0.1\n"
    )


@pytest.mark.parametrize("partial_line", ["", '{"step": 6, "pha'])
def test_lines_after_the_resumed_step_are_removed_and_rewritten(run, partial_line):
    write(run, [1, 2, 3, 4])
    expected = run.metrics_jsonl.read_bytes(), run.metrics_csv.read_bytes()
    with run.metrics_jsonl.open("a") as file:
        file.write(partial_line)
    write(run, [3, 4], start_step=2)
    assert (run.metrics_jsonl.read_bytes(), run.metrics_csv.read_bytes()) == expected


def test_new_run_starts_with_empty_files(run):
    write(run, [1, 2])
    write(run, [])
    assert run.metrics_jsonl.read_text() == ""
    assert run.metrics_csv.read_text() == "step,phase,name,value\n"


def test_tensorboard_has_one_value_per_step_after_a_resume(run):
    write(run, [1, 2, 3, 4])
    write(run, [3, 4, 5], start_step=2)
    board = EventAccumulator(str(run.tensorboard))
    board.Reload()
    assert [event.step for event in board.Scalars("train/total")] == [1, 2, 3, 4, 5]
    assert [event.step for event in board.Scalars("validation/dice")] == [2, 4]

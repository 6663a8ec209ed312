import csv
import json
import os

import numpy as np
import pytest

from segnetr.config.schema.segmentation import EvaluateConfig
from segnetr.engine.evaluation.evaluator import Evaluation
from segnetr.errors import ReadError, WriteError
from segnetr.metrics import Unscored, score_masks, summarize
from segnetr.outputs.tables.scores import (
    SCORE_RULES,
    read_per_case_csv,
    read_summary_json,
    show_number,
    summary_table,
    text_table,
    write_per_case_csv,
    write_summary_json,
)

ORGANS = ("background", "left", "right")


def synthetic_scores():
    """Three cases: both classes found; the left one missed; a false alarm on the right."""
    scores = []
    for case_id, left, right in [
        ("b,1", (5, 6), (4, 4)),
        ("a", (0, 5), (3, 4)),
        ("c", (5, 5), (3, 0)),
    ]:
        prediction, ground_truth = np.zeros((2, 20, 24), np.uint8)
        for index, (found, true), start in ((1, left, 1), (2, right, 12)):
            prediction[2 : 2 + found, start : start + found] = index
            ground_truth[2 : 2 + true, start : start + true] = index
        scores += score_masks(prediction, ground_truth, classes=ORGANS, case_id=case_id)
    return scores


def synthetic_evaluation():
    scores = synthetic_scores()
    return Evaluation(
        scores=tuple(scores),
        summaries=tuple(summarize(scores, bootstrap=50)),
        unscored=(Unscored(case_id="d", reason="d.png: torn"),),
    )


def test_per_case_table_has_a_row_for_each_case_and_class(tmp_path):
    write_per_case_csv(tmp_path / "per_case.csv", synthetic_scores())
    with (tmp_path / "per_case.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case_id"], row["class"]) for row in rows] == [
        (case, name) for case in ("b,1", "a", "c") for name in ("left", "right")
    ]
    assert [row["outcome"] for row in rows] == [
        "found", "found", "missed", "found", "found", "false_alarm"
    ]  # fmt: skip
    assert float(rows[0]["dice"]) == 2 * 25 / (25 + 36)
    assert rows[0]["ground_truth_pixels"] == "36"


def test_per_case_table_reads_back_exactly(tmp_path):
    scores = synthetic_scores() + score_masks(
        np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8), classes=ORGANS, case_id="empty"
    )
    write_per_case_csv(tmp_path / "per_case.csv", scores)
    assert read_per_case_csv(tmp_path / "per_case.csv") == scores


def test_summary_reads_back_and_states_rules_and_settings(tmp_path):
    evaluation, path = synthetic_evaluation(), tmp_path / "summary.json"
    write_summary_json(path, evaluation, title="drawn, test part", config=EvaluateConfig(seed=3))
    content = read_summary_json(path)
    assert content.summaries == evaluation.summaries
    assert content.unscored == evaluation.unscored
    assert content.title == "drawn, test part"
    assert content.settings == {
        "nsd_tolerance": 2.0, "bootstrap": 2000, "isic_threshold": 0.65, "seed": 3
    }  # fmt: skip
    assert json.loads(path.read_text())["rules"] == SCORE_RULES


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 99}', "case_id,class\n"])
def test_error_for_unrelated_files_names_the_file(tmp_path, text):
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(ReadError, match="file"):
        read_summary_json(path)
    with pytest.raises(ReadError, match="file: not a table of scores"):
        read_per_case_csv(path)


def test_error_for_missing_files_names_the_command_to_run(tmp_path):
    for read in (read_summary_json, read_per_case_csv):
        with pytest.raises(ReadError, match="run segnetr evaluate"):
            read(tmp_path / "nothing")


@pytest.mark.skipif(os.name != "posix", reason="needs a file where a folder should be")
def test_write_error_names_the_path(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="cannot write"):
        write_per_case_csv(tmp_path / "file" / "per_case.csv", synthetic_scores())


def test_summary_table_shows_every_row_and_all_counts():
    text = summary_table(synthetic_evaluation().summaries)
    assert "left   dice" in text
    assert "dice_pooled" in text
    assert "left: 1 false negatives, 0 false positives, 0 empty in both, of 3 cases" in text
    assert "right: 0 false negatives, 1 false positives, 0 empty in both, of 3 cases" in text
    assert "mean: 1 false negatives, 1 false positives" in text


def test_summary_table_shows_number_of_cases_in_each_mean():
    empty = np.zeros((6, 6), np.uint8)
    scores = score_masks(empty, empty, classes=ORGANS[:2], case_id="empty")
    scores += score_masks(empty + 1, empty + 1, classes=ORGANS[:2], case_id="full")
    line = next(line for line in summary_table(summarize(scores)).splitlines() if "hd95" in line)
    assert line.endswith("1 of 2")
    assert summary_table([]) == "no case was scored"


def test_text_table_aligns_columns_and_marks_missing_values():
    rows = [
        {"name": "segnetr", "params": 12.22, "published": None, "runs": True},
        {"name": "unet", "params": 31.03, "published": 31.0, "runs": False},
    ]
    assert text_table(rows).splitlines() == [
        "name     params  published  runs",
        "-------  ------  ---------  ----",
        "segnetr   12.22          -  yes",
        "unet      31.03         31  no",
    ]
    assert text_table([]) == ""


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [(0.12345, "dice", "0.123"), (3.14159, "hd95_mm", "3.14"), (314.159, "assd_px", "314.2"),
     (None, "dice", "-"), (0.5, "nsd_2mm", "0.500")],
)  # fmt: skip
def test_number_of_digits_depends_on_the_metric(value, metric, text):
    assert show_number(value, metric=metric) == text

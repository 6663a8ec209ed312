"""`segnetr compare` on synthetic run folders: errors and results."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from segnetr.cli.main import application
from typer.testing import CliRunner

from segnetr.config.load import dump_config
from segnetr.config.schema.segmentation import DataConfig, EvaluateConfig, RunConfig, TrainConfig
from segnetr.data.case import Split
from segnetr.data.splits.split import write_split
from segnetr.engine.evaluation.evaluator import evaluate_pairs
from segnetr.engine.evaluation.pairing import MaskPair
from segnetr.outputs.tables.case_records import CaseRecord, write_case_records
from segnetr.outputs.tables.comparison import ComparisonRow
from segnetr.outputs.tables.scores import write_per_case_csv, write_summary_json
from segnetr.workflows.comparison.runs import name_runs

CLASSES = ("background", "lesion")
QUICK = EvaluateConfig(bootstrap=200)


def disc(radius, *, shape=(40, 44)):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return ((rows - 20) ** 2 + (columns - 22) ** 2 <= radius**2).astype(np.uint8)


def draw(radius, classes):
    """A disc, with a smaller one of another class inside where there are three classes."""
    return disc(radius) + disc(radius // 2) * np.uint8(classes > 2)


def write_run(
    folder: Path,
    errors,
    *,
    train=("t1", "t2"),
    radius=12,
    evaluate=QUICK,
    classes=CLASSES,
    lr=1e-3,
    patients=None,
    tta="none",
):
    """A run whose prediction of case i is too large by errors[i] pixels."""
    ids = [f"c{number}" for number in range(len(errors))]
    config = RunConfig(
        data=DataConfig(dataset="isic2018", data_dir=folder / "nowhere"),
        train=TrainConfig(lr=lr),
        evaluate=evaluate,
    )
    (folder / "evaluation").mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(config))
    split = Split(train=train, validation=(), test=tuple(ids), origin="seeded", seed=0)
    write_split(split, folder / "splits.json")
    evaluation = evaluate_pairs(
        [
            MaskPair(
                case_id=case,
                prediction=draw(radius + error, len(classes)),
                ground_truth=draw(radius, len(classes)),
            )
            for case, error in zip(ids, errors, strict=True)
        ],
        classes=classes,
        config=evaluate,
    )
    scores = folder / "evaluation"
    write_per_case_csv(scores / "per_case.csv", evaluation.scores)
    write_summary_json(
        scores / "summary.json", evaluation, title="test part", config=evaluate, tta=tta
    )
    if patients is not None:
        records = [
            CaseRecord(case_id=c, patient_id=p, grid=(40, 44), spacing=None, seconds=0.1)
            for c, p in zip(ids, patients, strict=True)
        ]
        write_case_records(scores / "cases.json", records)
    return folder


def compare(*arguments):
    result = CliRunner().invoke(application, ["compare", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def rows_of(result):
    return json.loads(result.stdout)["comparisons"]


@pytest.mark.slow
def test_better_run_is_named_for_shares_and_distances(tmp_path):
    close = write_run(tmp_path / "close", [1] * 12)
    far = write_run(tmp_path / "far", [4, 5, 6, 5, 4, 6, 5, 4, 6, 5, 4, 6], lr=1e-4)
    done = compare(far, close, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    rows = {row["metric"]: row for row in rows_of(done)}
    assert set(rows) == {"dice", "hd95_px", "nsd_2px"}
    assert {row["verdict"] for row in rows.values()} == {"close is better"}
    assert rows["dice"]["difference_mean"] > 0 > rows["hd95_px"]["difference_mean"]
    assert all(row["better"] == 12 and row["worse"] == 0 for row in rows.values())
    assert rows["dice"]["effect"] == 1
    assert rows["hd95_px"]["effect"] == -1
    assert all(row["p_corrected"] >= row["p_value"] for row in rows.values())
    with (tmp_path / "out" / "compare.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["p_value"]) for row in table] == [row["p_value"] for row in rows.values()]
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "close is better" in page
    assert "train.lr" in page  # the setting that differs
    assert "no images of the differences" in page  # the data is not there
    assert not re.search(r"<script|(src|href)=.https?:|\son\w+=|url\(", page)


def test_identical_runs_have_no_difference(tmp_path):
    run = write_run(tmp_path / "run", [0, 2, 3, 1, -2, 4])
    other = write_run(tmp_path / "other", [0, 2, 3, 1, -2, 4])
    for pair in ((run, other), (run, run)):
        done = compare(*pair, "--out", tmp_path / "out", "--json")
        assert {row["verdict"] for row in rows_of(done)} == {"no difference"}
        assert {row["p_corrected"] for row in rows_of(done)} == {1.0}
    message = compare(run, other, "--out", tmp_path / "out")
    assert "no difference: every case has the same scores" in message.stdout


def test_a_small_difference_of_few_cases_is_not_decided(tmp_path):
    first = write_run(tmp_path / "a", [1, 2, 3, 1, 2, 3, 2])
    second = write_run(tmp_path / "b", [2, 1, 3, 1, 3, 2, 2])
    done = compare(first, second, "--out", tmp_path / "out", "--metric", "dice", "--json")
    assert [row["verdict"] for row in rows_of(done)] == ["not decided"]


def test_three_runs_are_compared_pairwise_with_one_correction(tmp_path):
    runs = [
        write_run(tmp_path / name, [shift + number % 3 for number in range(9)])
        for name, shift in (("a", 0), ("b", 1), ("c", 3))
    ]
    rows = rows_of(compare(*runs, "--out", tmp_path / "out", "--metric", "dice", "--json"))
    assert [(row["first"], row["second"]) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c")]
    lowest = min(row["p_value"] for row in rows)
    assert min(row["p_corrected"] for row in rows) == pytest.approx(3 * lowest)


def test_patients_are_the_statistical_units(tmp_path):
    patients = ["p", "p", "q", "q", "r", "r"]
    first = write_run(tmp_path / "a", [1] * 6, patients=patients)
    second = write_run(tmp_path / "b", [3] * 6, patients=patients)
    done = compare(first, second, "--out", tmp_path / "out", "--metric", "dice", "--json")
    assert [(row["cases"], row["patients"]) for row in rows_of(done)] == [(6, 3)]
    notes = " ".join(json.loads(done.stdout)["notes"])
    assert "too few" in notes
    assert "do not say which cases are of one patient" not in notes
    # Scores of an older version beside them: the patients are those of the run that knows them.
    (first / "evaluation" / "cases.json").unlink()
    again = compare(first, second, "--out", tmp_path / "out", "--metric", "dice", "--json")
    assert [row["patients"] for row in rows_of(again)] == [3]
    (second / "evaluation" / "cases.json").unlink()
    neither = compare(first, second, "--out", tmp_path / "out", "--metric", "dice", "--json")
    assert [row["patients"] for row in rows_of(neither)] == [6]
    assert "do not say which cases are of one patient" in " ".join(
        json.loads(neither.stdout)["notes"]
    )


def test_classes_are_compared_separately_on_request(tmp_path):
    classes = ("background", "rim", "core")
    first = write_run(tmp_path / "a", [1, 2, 3, 1, 2, 3, 1], classes=classes)
    second = write_run(tmp_path / "b", [4, 5, 6, 4, 5, 6, 4], classes=classes)
    arguments = [first, second, "--out", tmp_path / "out", "--metric", "dice", "--json"]
    assert [row["class"] for row in rows_of(compare(*arguments))] == ["mean"]
    rows = {row["class"]: row for row in rows_of(compare(*arguments, "--by-class"))}
    assert list(rows) == ["rim", "core", "mean"]
    both = (rows["rim"]["first_mean"] + rows["core"]["first_mean"]) / 2
    assert rows["mean"]["first_mean"] == pytest.approx(both)


def test_runs_with_different_splits_can_be_compared_on_another_dataset(tmp_path):
    runs = [
        write_run(tmp_path / name, errors, train=train)
        for name, errors, train in (("a", [1, 2, 3], ("x",)), ("b", [2, 2, 4], ("y",)))
    ]
    for run in runs:
        (run / "evaluation").rename(run / "evaluation-ph2")
    done = compare(*runs, "--dataset", "ph2", "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    assert {row["cases"] for row in rows_of(done)} == {3}


def test_training_dataset_is_rejected_as_other_dataset(tmp_path):
    runs = [write_run(tmp_path / name, [1, 2, 3], train=(name,)) for name in ("c1", "c2")]
    for run in runs:
        (run / "evaluation").rename(run / "evaluation-isic2018")
    done = compare(*runs, "--dataset", "isic2018", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "trained on 1 of these cases, for example c1" in done.stderr
    for run in runs:
        (run / "evaluation-isic2018").rename(run / "evaluation-isic2017")
    noted = compare(*runs, "--dataset", "isic2017", "--out", tmp_path / "out", "--json")
    assert sum("have names of cases" in note for note in json.loads(noted.stdout)["notes"]) == 2


def test_note_mentions_different_test_time_augmentation(tmp_path):
    first = write_run(tmp_path / "a", [1, 2, 3])
    second = write_run(tmp_path / "b", [2, 2, 3], tta="flips")
    done = compare(first, second, "--out", tmp_path / "out", "--json")
    notes = " ".join(json.loads(done.stdout)["notes"])
    assert "different --tta (a none, b flips)" in notes
    assert "evaluate --tta" in (tmp_path / "out" / "compare.html").read_text()
    again = compare(first, first, "--out", tmp_path / "out", "--json")
    assert "--tta" not in " ".join(json.loads(again.stdout)["notes"])


def test_too_few_patients_for_many_comparisons_give_a_note(tmp_path):
    first = write_run(tmp_path / "a", [1, 1, 2, 1, 2, 1])
    second = write_run(tmp_path / "b", [4, 5, 4, 6, 5, 4])
    three = json.loads(compare(first, second, "--out", tmp_path / "o", "--json").stdout)
    assert {row["verdict"] for row in three["comparisons"]} == {"not decided"}
    assert "6 patients are too few" in three["notes"][0]
    assert "fewer with --metric" in three["notes"][0]
    arguments = ["--out", tmp_path / "o", "--metric", "dice", "--json"]
    one = json.loads(compare(first, second, *arguments).stdout)
    assert [row["verdict"] for row in one["comparisons"]] == ["a is better"]
    assert not any("too few" in note for note in one["notes"])


def as_folds(run, parts):
    """Make a run into a cross-validation of two folds that validate on the parts."""
    index = {"format": "segnetr-folds-1", "folds": 2}
    (run / "cross_validation.json").write_text(json.dumps(index))
    (run / "evaluation").rename(run / "out_of_fold")
    for number, ids in enumerate(parts, start=1):
        others = tuple(i for part in parts for i in part if part is not ids)
        split = Split(train=others, validation=tuple(ids), test=(), origin="seeded", seed=0)
        write_split(split, run / f"fold-{number}" / "splits.json")
    return run


def test_cross_validations_are_compared_out_of_fold_and_need_the_same_folds(tmp_path):
    runs = [write_run(tmp_path / name, [1, 2, 3, number]) for number, name in enumerate("abc")]
    halves = (["c0", "c1"], ["c2", "c3"])
    for run in runs[:2]:
        as_folds(run, halves)
    as_folds(runs[2], (["c0", "c2"], ["c1", "c3"]))
    done = compare(*runs[:2], "--out", tmp_path / "out", "--json")
    assert {row["cases"] for row in rows_of(done)} == {4}
    refused = compare(runs[0], runs[2], "--out", tmp_path / "out")
    assert refused.exit_code == 2
    assert "different splits" in refused.stderr


def test_classifiers_are_rejected(tmp_path):
    run = write_run(tmp_path / "a", [1, 2, 3])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.yaml").write_text("task: classification\n")
    done = compare(run, tmp_path / "b", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "a classifier's run" in done.stderr


REFUSED = {
    "different splits": ({"train": ("t1", "t3")}, "trained on different splits"),
    "different cases": ({"errors": [1, 2]}, "scored on different cases: 1 are"),
    "different ground truth": ({"radius": 11}, "scored against different masks"),
    "different scoring": (
        {"evaluate": replace(QUICK, isic_threshold=0.5)},
        "different evaluate.isic_threshold (0.65 and 0.5)",
    ),
    "different classes": ({"classes": ("background", "mole")}, "different classes: lesion; mole"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_error_for_incomparable_runs_is_one_line(tmp_path, name):
    changes, message = REFUSED[name]
    changes = dict(changes)
    errors = changes.pop("errors", [1, 2, 3])
    first = write_run(tmp_path / "a", [1, 2, 3])
    # The test part is the same although fewer cases of it were scored.
    second = write_run(tmp_path / "b", errors, **changes)
    if name == "different cases":
        (second / "splits.json").write_text((first / "splits.json").read_text())
    done = compare(first, second, "--out", tmp_path / "out")
    assert done.exit_code == 2
    [line] = done.stderr.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_single_run_folder_without_scores_and_unknown_metric_are_rejected(tmp_path):
    run = write_run(tmp_path / "a", [1, 2, 3])
    bare = write_run(tmp_path / "b", [1, 2, 3])
    (bare / "evaluation" / "per_case.csv").unlink()
    for arguments, message in (
        ([run], "two runs at least"),
        ([run, tmp_path], "not a run (config.yaml is missing)"),
        ([run, bare], "run segnetr evaluate"),
        ([run, run, "--metric", "f1"], "--metric f1: these runs have dice, iou"),
        ([run, run, "--split", "validation"], "run segnetr evaluate"),
        ([run, run, "--split", "test", "--dataset", "ph2"], "compare without --split"),
    ):
        done = compare(*arguments, "--out", tmp_path / "out")
        assert done.exit_code == 2, arguments
        assert message in done.stderr


def test_names_are_the_shortest_unique_path_ends():
    paths = [Path("/x/isic/segnetr/first"), Path("/x/isic/unet/first"), Path("/x/isic/unet/last")]
    assert name_runs(paths) == ["segnetr/first", "unet/first", "last"]
    assert name_runs([paths[0], paths[0]]) == ["first", "first (2)"]


def test_verdict_needs_the_interval_and_the_test(tmp_path):
    run = write_run(tmp_path / "a", [1] * 8)
    other = write_run(tmp_path / "b", [3] * 8)
    [row] = rows_of(compare(run, other, "--metric", "dice", "--out", tmp_path / "o", "--json"))
    assert row["verdict"] == "a is better"
    from segnetr.metrics.paired import Difference
    from segnetr.metrics.significance import PairedResult

    def verdict(low, high, p):
        result = PairedResult(
            first_mean=0.5, second_mean=0.6, patients=9, higher=8, lower=1, equal=0, effect=0.5,
            p_value=p, difference=Difference(mean=0.1, low=low, high=high, cases=9),
        )  # fmt: skip
        return ComparisonRow(
            first="a", second="b", class_name="mean", metric="dice", result=result, p_corrected=p
        ).verdict

    assert verdict(0.01, 0.2, 0.01) == "b is better"
    assert verdict(-0.01, 0.2, 0.01) == verdict(0.01, 0.2, 0.06) == "not decided"
    assert verdict(None, None, 0.01) == "not decided"

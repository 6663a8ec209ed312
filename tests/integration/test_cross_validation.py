"""`segnetr train --fold`: folds that resume, one report, every case predicted out of its fold."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from segnetr.data.splits.split import read_split
from segnetr.outputs.tables.scores import read_per_case_csv

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def crossed(command, images, tiny, tmp_path_factory) -> Path:
    """Three folds, the second trained by itself first."""
    run = tmp_path_factory.mktemp("folds") / "cv"
    arguments = ["--dataset", "isic2018", "--data-dir", images, "--out", run, "--steps", 2]
    arguments += [*tiny, "--folds", 3]
    first = command("train", *arguments, "--fold", 2, "--json")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["missing"] == [1, 3]
    before = (run / "fold-2" / "metrics.jsonl").stat().st_mtime_ns
    done = command("train", *arguments, "--fold", "all", "--resume")
    assert done.returncode == 0, done.stderr
    assert "fold 2 of 3: already done" in done.stderr
    assert (run / "fold-2" / "metrics.jsonl").stat().st_mtime_ns == before
    return run


def test_each_case_is_scored_and_predicted_once_by_a_network_that_never_saw_it(crossed, images):
    scores = read_per_case_csv(crossed / "out_of_fold" / "per_case.csv")
    scored = [score.case_id for score in scores if score.metric == "dice"]
    folds = [read_split(crossed / f"fold-{number}" / "splits.json") for number in (1, 2, 3)]
    whole = read_split(crossed / "splits.json")
    assert sorted(scored) == sorted(i for fold in folds for i in fold.validation)
    assert tuple(sorted(scored)) == whole.train
    assert len(scored) == 9
    masks = {path.stem: path for path in (crossed / "out_of_fold" / "masks").iterdir()}
    assert sorted(masks) == sorted(scored)
    image = next(images.glob(f"*/{scored[0]}.jpg"))
    with Image.open(masks[scored[0]]) as mask, Image.open(image) as pixels:
        assert mask.size == pixels.size
    for fold in folds:
        assert fold.test == whole.test
        assert len(fold.test) == 3


def test_report_shows_each_fold_and_all_cases(crossed, command):
    summary = json.loads((crossed / "out_of_fold" / "summary.json").read_text())
    (dice,) = [row for row in summary["summaries"] if row["metric"] == "dice"]
    assert dice["cases"] == 9
    tested = json.loads((crossed / "evaluation" / "summary.json").read_text())
    assert "test split, 3 cases" in tested["title"]
    page = crossed / "report.html"
    page.unlink()
    assert command("report", crossed).returncode == 0
    text = page.read_text()
    assert "3 folds" in text
    assert "std of the fold means" in text
    assert "predicted with the mean probability of all folds" in text
    assert "9 in 3 folds, 3 test" in text
    assert json.loads((crossed / "out_of_fold" / "reliability.json").read_text())["cases"] == 9
    assert "Are the probabilities calibrated?" in text


def test_prediction_by_the_folder_is_the_mean_of_its_folds(crossed, command, images, tmp_path):
    image = next(images.glob("*Test_Input/*.jpg"))
    answers = []
    for model in (crossed, *(crossed / f"fold-{number}" for number in (1, 2, 3))):
        out = tmp_path / model.name
        done = command("predict", image, "--model", model, "--out", out, "--save-prob", "--quiet")
        assert done.returncode == 0, done.stderr
        with Image.open(out / f"{image.stem}_prob.png") as deep:
            answers.append(np.asarray(deep).astype(float) / 65535)
    together, *members = answers
    assert np.abs(together - np.mean(members, axis=0)).max() < 1e-3
    assert np.abs(members[0] - members[1]).max() > 1e-3


def test_fold_alone_repeats_the_fold_of_all(crossed, command, images, tiny, tmp_path):
    config = crossed / "fold-1" / "config.yaml"
    done = command("train", "--config", config, "--out", tmp_path / "again", "--quiet")
    assert done.returncode == 0, done.stderr
    first = load_file(crossed / "fold-1" / "model" / "model.safetensors")
    again = load_file(tmp_path / "again" / "model" / "model.safetensors")
    assert all(np.array_equal(first[name], again[name]) for name in first)


@pytest.mark.exhaustive
def test_terminated_fold_resumes_exactly(start, images, tiny, tmp_path):
    arguments = ["train", "--dataset", "isic2018", "--data-dir", images, "--steps", 20, *tiny]
    arguments += ["--set", "train.save_every=1", "--folds", 2, "--quiet"]
    broken = start(*arguments, "--fold", 2, "--out", tmp_path / "broken")
    last = tmp_path / "broken" / "fold-2" / "checkpoints" / "last"
    while not last.exists() and broken.poll() is None:
        time.sleep(0.05)
    broken.send_signal(signal.SIGTERM)
    assert broken.wait(timeout=300) == 143
    assert not (tmp_path / "broken" / "fold-2" / "model").exists()
    resumed = start(*arguments, "--fold", "all", "--out", tmp_path / "broken", "--resume")
    whole = start(*arguments, "--fold", 2, "--out", tmp_path / "whole")
    assert resumed.wait(timeout=300) == whole.wait(timeout=300) == 0
    name = Path("fold-2") / "model" / "model.safetensors"
    first, second = (load_file(tmp_path / run / name) for run in ("whole", "broken"))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert (tmp_path / "broken" / "report.html").is_file()
    assert not (tmp_path / "whole" / "report.html").exists()


def test_wrong_use_of_folds_is_one_line(crossed, command, images, tiny, tmp_path):
    where = ["--dataset", "isic2018", "--data-dir", images, *tiny, "--steps", 1]
    wrong = {
        ("--fold", "all", "--folds", "3", "--out", crossed): "--resume",
        ("--fold", "all", "--folds", "4", "--out", crossed, "--resume"): "has 3 folds, not 4",
        ("--fold", "9", "--folds", "3", "--out", tmp_path / "a"): "folds 1 to 3",
        ("--fold", "x", "--out", tmp_path / "a"): "--fold x",
        ("--folds", "3", "--out", tmp_path / "a"): "--fold",
        ("--fold", "all", "--resume", "--out", tmp_path / "a"): "no cross-validation",
        ("--fold", "all", "--folds", "20", "--out", tmp_path / "b"): "only 9 patients",
    }
    for flags, words in wrong.items():
        done = command("train", *where, *flags, "--quiet")
        assert done.returncode == 2, (flags, done.stderr)
        assert words in done.stderr
    part = tmp_path / "part"
    shutil.copytree(crossed, part)
    shutil.rmtree(part / "fold-3")
    image = next(images.glob("*Test_Input/*.jpg"))
    done = command("predict", image, "--model", part, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "2 of 3 folds are done" in done.stderr

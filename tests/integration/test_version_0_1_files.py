"""Files that version 0.1 wrote are still read, with the same results.

The files are in `tests/fixtures/version_0_1`; its README describes each of them. The tests use only
the command line and `segnetr.load`, so they do not depend on the layout of the code.
"""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import load_file

import segnetr
from segnetr.config import renames

FILES = Path(__file__).parents[1] / "fixtures" / "version_0_1"
MODELS = sorted(path.name for path in (FILES / "models").iterdir())
WORDS = json.loads((FILES / "configs" / "words.json").read_text())
RECIPES = (FILES / "configs" / "recipes.txt").read_text().split()
# A command with these flags reads its configuration, and then stops with this message.
READ_ONLY = ["--resume"]
STOPPED = "--resume needs --out"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Copy all files to a folder that the paths in them are relative to."""
    return Path(shutil.copytree(FILES, tmp_path / "old"))


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the files that no command changes: configurations and the list of flags."""
    folder = tmp_path_factory.mktemp("version_0_1")
    shutil.copytree(FILES / "configs", folder / "configs")
    shutil.copy(FILES / "flags.txt", folder)
    return folder


@pytest.fixture(autouse=True)
def forget_notices() -> None:
    """Forget the notices about old names that other tests have printed."""
    renames.announce.cache_clear()


@pytest.fixture
def run_alone(old: Path, tmp_path: Path):
    """Run `segnetr` in a separate process with one thread, like the one that wrote the files."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "segnetr.cli", *map(str, arguments)],
            cwd=old,
            env={**os.environ, "OMP_NUM_THREADS": "1", "SEGNETR_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def name_processor() -> str:
    """Return the CPU features that determine the last bits of a sum; empty if unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return ""
    facts = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    named = [facts.get(key, "") for key in ("vendor_id", "cpu family", "model")]
    return " ".join([*named, torch.backends.cpu.get_cpu_capability()])


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Old names of backbone settings are accepted with this warning.
pytestmark = pytest.mark.filterwarnings("ignore:.*is now called:UserWarning")

# Keys of files that predict and evaluate write, and their names in version 0.1.
RENAMED = {"novelty": "ood_score", "is_unlike": "is_ood"}


def assert_alike(found: object, expected: object) -> None:
    """Compare plain data; numbers may differ by the rounding of another CPU."""
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        for key, value in expected.items():
            assert_alike(found[RENAMED.get(key, key)], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
    else:
        assert found == expected


def assert_read(done) -> None:
    """Check that a command has accepted its configuration, and printed each notice once."""
    assert done.returncode == 2
    assert STOPPED in done.stderr, done.stderr
    *notices, error = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert all(line.startswith("note: ") and " is now " in line for line in notices)
    assert len(notices) == len(set(notices))


def notices_of(done) -> set[str]:
    """Return the old names that a command has printed notices about."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    return {line.removeprefix("note: ").partition(" is now ")[0] for line in lines}


# Models


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_old_model_predicts_the_same_masks_and_quality(command, old: Path, name: str) -> None:
    inputs = "inputs_volume" if name == "volume" else "inputs"
    arguments = ["--model", f"models/{name}", "--out", "out", "--device", "cpu"]
    done = command("predict", inputs, *arguments, "--quiet", cwd=old)
    assert done.returncode == 0, done.stderr
    expected = json.loads((old / "predictions" / "quality.json").read_text())[name]
    for mask, quality in expected.items():
        found = segnetr.load(old / "models" / name, device="cpu").predict(old / inputs / mask)
        if name != "volume":
            image = np.asarray(Image.open(old / "out" / mask))
            np.testing.assert_array_equal(
                image, np.asarray(Image.open(old / "predictions" / name / mask))
            )
            np.testing.assert_array_equal(image > 0, found.labels > 0)
        assert (found.quality is None) == (quality is None)
    index = json.loads((old / "out" / "predictions.json").read_text())
    assert_alike({item["mask"]: item.get("quality") for item in index["done"]}, expected)


@pytest.mark.slow
def test_old_volume_model_predicts_the_same_labels(old: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    found = segnetr.load(old / "models/volume", device="cpu").predict(
        old / "inputs_volume/scan.nii.gz"
    )
    expected = nibabel.load(old / "predictions/volume/scan.nii.gz").get_fdata()
    np.testing.assert_array_equal(found.labels, expected)
    assert len(np.unique(expected)) > 1


@pytest.mark.slow
def test_old_classifier_predicts_the_same_probabilities(command, old: Path) -> None:
    arguments = ["--model", "runs/classifier", "--out", "out", "--device", "cpu", "--quiet"]
    done = command("predict", "inputs_labels", *arguments, cwd=old)
    assert done.returncode == 0, done.stderr
    found = read_rows(old / "out/predictions.csv")
    for row, expected in zip(
        found, read_rows(old / "predictions/classifier/predictions.csv"), strict=True
    ):
        assert list(row) == list(expected)
        for key, value in expected.items():
            if key.startswith("p_") or key == "probability":
                assert float(row[key]) == pytest.approx(float(value), abs=1e-3)
            else:
                assert row[key] == value


@pytest.mark.slow
def test_ensemble_of_old_folds_predicts_the_same_masks(command, old: Path) -> None:
    arguments = ["--model", "runs/folds", "--out", "out", "--device", "cpu", "--quiet"]
    done = command("predict", "inputs", *arguments, cwd=old)
    assert done.returncode == 0, done.stderr
    for path in (old / "predictions/folds").glob("*.png"):
        expected = np.asarray(Image.open(path))
        np.testing.assert_array_equal(np.asarray(Image.open(old / "out" / path.name)), expected)


@pytest.mark.slow
def test_training_can_start_from_the_weights_of_an_old_model(command, old: Path, tiny) -> None:
    settings = yaml.safe_load((old / "runs/finished/config.yaml").read_text())["model"]
    config = old / "network.yaml"
    config.write_text(yaml.safe_dump({"model": settings}))
    where = ["--dataset", "drawn", "--data-dir", "data", "--set", "data.cache_dir=cache"]
    start = ["--set", "train.weights=runs/finished", "--set", "predict.quality=false"]
    quick = ["--set", "train.image_size=32", "--workers", 0, "--device", "cpu", "--steps", 1]
    arguments = [*where, *start, *quick, "--batch-size", 4, "--out", "new", "--quiet"]
    done = command("train", "--config", config, *arguments, cwd=old)
    assert done.returncode == 0, done.stderr


# Predictions


@pytest.mark.slow
def test_interrupted_old_prediction_is_completed(command, old: Path) -> None:
    out = old / "predictions/segnetr"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    existing, missing = sorted(out.glob("*.png"))
    missing.unlink()
    arguments = ["--model", "models/segnetr", "--device", "cpu", "--out", out, "--skip-existing"]
    done = command("predict", "inputs", *arguments, "--json", cwd=old)
    assert done.returncode == 0, done.stderr
    assert existing.read_bytes() == before[existing.name]
    found = np.asarray(Image.open(missing))
    shutil.copy(FILES / "predictions/segnetr" / missing.name, old / "before.png")
    np.testing.assert_array_equal(found, np.asarray(Image.open(old / "before.png")))
    rows = read_rows(FILES / "predictions/segnetr/predictions.csv")
    assert [row["predicted_dice"] for row in read_rows(out / "predictions.csv")] == [
        row["predicted_dice"] for row in rows
    ]


@pytest.mark.slow
def test_shards_of_both_versions_are_merged(command, old: Path) -> None:
    out = old / "predictions/shard"
    arguments = ["--model", "models/segnetr", "--device", "cpu", "--out", out, "--shard", "2/2"]
    done = command("predict", "inputs", *arguments, "--quiet", cwd=old)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((out / "predictions.json").read_text())["done"]) == 2
    rows = read_rows(out / "predictions.csv")
    assert len(rows) == 2
    assert all(row["predicted_dice"] for row in rows)


# Runs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finished", "classifier"])
def test_evaluation_of_an_old_run_gives_the_same_scores(command, old: Path, name: str) -> None:
    run = old / "runs" / name
    done = command("evaluate", f"runs/{name}", "--device", "cpu", "--out", "again", cwd=old)
    assert done.returncode == 0, done.stderr
    before = read_rows(run / "evaluation/per_case.csv")
    again = read_rows(old / "again/per_case.csv")
    assert [row["case_id"] for row in again] == [row["case_id"] for row in before]
    scores = [key for key in before[0] if key in {"dice", "iou"} or key.startswith("p_")]
    for key in scores:
        assert [float(row[key]) for row in again] == pytest.approx(
            [float(row[key]) for row in before], abs=1e-3
        )
    assert scores


@pytest.mark.slow
@pytest.mark.parametrize("name", ["finished", "classifier", "folds"])
def test_report_of_an_old_run_can_be_written_again(command, old: Path, name: str) -> None:
    done = command("report", f"runs/{name}", cwd=old)
    assert done.returncode == 0, done.stderr
    page = (old / "runs" / name / "report.html").read_text()
    assert "segnetr train" in page or "segnetr classify" in page
    if name == "finished":
        # Settings, scores, images, predicted Dice, postprocessing trials.
        for word in ("choose_post", "95 %", "data:image/jpeg", "predicted", "threshold:"):
            assert word in page


@pytest.mark.slow
def test_old_runs_can_be_compared(command, old: Path) -> None:
    shutil.copytree(old / "runs/finished", old / "runs/second")
    done = command("compare", "runs/finished", "runs/second", "--out", "comparison", cwd=old)
    assert done.returncode == 0, done.stderr
    assert (old / "comparison/compare.html").is_file()


@pytest.mark.slow
def test_finished_old_folds_are_collected_without_training_again(command, old: Path) -> None:
    config = ["--config", "runs/folds/config.yaml", "--fold", "all", "--folds", 2]
    before = (old / "runs/folds/out_of_fold/per_case.csv").read_bytes()
    done = command("train", *config, "--out", "runs/folds", "--resume", cwd=old)
    assert done.returncode == 0, done.stderr
    assert "already done" in done.stderr
    after = (old / "runs/folds/out_of_fold/per_case.csv").read_bytes()
    assert after == before.replace(b",truth_pixels", b",ground_truth_pixels")  # words: allow


@pytest.mark.slow
def test_finished_row_of_an_old_benchmark_is_not_trained_again(command, old: Path) -> None:
    arguments = json.loads((old / "benchmark/command.json").read_text())
    done = command(*arguments, "--json", cwd=old)
    assert done.returncode == 0, done.stderr
    assert not (old / "benchmark/runs").exists()


def resumed(kind: str, how: str) -> Iterator[str]:
    """Return the command that resumes an interrupted run."""
    verb = "classify" if kind == "classifier_interrupted" else "train"
    if how == "its configuration":
        return iter([verb, "--config", f"runs/{kind}/config.yaml", "--out", f"runs/{kind}"])
    provenance = json.loads((FILES / "runs" / kind / "provenance.json").read_text())
    return iter(provenance["command"][1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("interrupted", "its configuration"),
        ("classifier_interrupted", "the command it was started with"),
        pytest.param(
            *("interrupted", "the command it was started with"), marks=pytest.mark.exhaustive
        ),
        pytest.param(
            *("classifier_interrupted", "its configuration"), marks=pytest.mark.exhaustive
        ),
    ],
)
def test_interrupted_old_run_resumes_to_the_result_of_an_uninterrupted_one(
    run_alone, old: Path, kind: str, how: str
) -> None:
    end = json.loads((old / "runs/resumed.json").read_text())
    whole = old / "runs" / ("finished" if kind == "interrupted" else "classifier")
    done = run_alone(*resumed(kind, how), "--resume", "--quiet")
    assert done.returncode == 0, done.stderr
    log = (old / "runs" / kind / "log.txt").read_text()
    assert f"resumed at step {end[kind]['step']}" in log
    found = load_file(old / "runs" / kind / "model/model.safetensors")
    expected = load_file(whole / "model/model.safetensors")
    lines = [old / "runs" / kind / "metrics.jsonl", whole / "metrics.jsonl"]
    assert found.keys() == expected.keys()
    if (torch.__version__, name_processor()) == (end["torch"], end["processor"]):
        hashes = {
            name: hashlib.sha256(tensor.tobytes()).hexdigest()[:16]
            for name, tensor in found.items()
        }
        assert hashes == end[kind]["tensors_sha256"]
        # Weights, training losses and scores are equal to the bit. Only the validation loss differs
        # from version 0.1, by 2.7e-8 in this run; the cause was not investigated.
        logs = [[json.loads(x) for x in path.read_text().splitlines()] for path in lines]
        for one, other in zip(*logs, strict=True):
            if one["phase"] == "validation":
                assert one.pop("loss") == pytest.approx(other.pop("loss"), rel=1e-7)
            assert one == other
    else:  # another CPU or library sums in another order, and each step amplifies the difference
        first, second = ([json.loads(x) for x in path.read_text().splitlines()] for path in lines)
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert (one["step"], one["phase"]) == (other["step"], other["phase"])
            for name in {"total", "loss"} & other.keys():
                is_next = one["step"] == end[kind]["step"] + 1
                assert one[name] == pytest.approx(other[name], rel=0.01 if is_next else 0.2)


# Data sets and splits


@pytest.mark.slow
def test_old_split_files_of_both_origins_are_read(command, old: Path) -> None:
    run = old / "runs/finished"
    shutil.copy(old / "splits.json", run / "splits.json")
    done = command("evaluate", "runs/finished", "--device", "cpu", "--out", "again", cwd=old)
    assert done.returncode == 0, done.stderr
    seeded = json.loads((old / "splits_seeded.json").read_text())
    assert seeded["origin"] == "seeded"
    shutil.copy(old / "splits_seeded.json", run / "splits.json")
    done = command("report", "runs/finished", cwd=old)
    assert done.returncode == 0, done.stderr
    assert seeded["sha256"][:16] in (run / "report.html").read_text()


@pytest.mark.slow
def test_split_of_the_synthetic_dataset_is_unchanged(command, old: Path) -> None:
    where = ["--dataset", "drawn", "--data-dir", "data"]
    done = command("data", "split", *where, "--out", "again.json", cwd=old)
    assert done.returncode == 0, done.stderr
    before, again = (json.loads((old / name).read_text()) for name in ("splits.json", "again.json"))
    for key in ("sha256", "train", "validation", "test"):
        assert again[key] == before[key]


@pytest.mark.slow
def test_images_of_the_synthetic_dataset_are_unchanged(command, old: Path) -> None:
    where = ["--dataset", "drawn", "--data-dir", "again", "--out", "again.json"]
    done = command("data", "split", *where, cwd=old)
    assert done.returncode == 0, done.stderr
    names = {path.name: path for path in (old / "again").rglob("*") if path.is_file()}
    before = [path for path in (old / "data").rglob("ISIC_*") if path.is_file()]
    assert len(before) == 2 * 17
    for path in before:
        again = np.asarray(Image.open(names[path.name])).astype(int)
        difference = np.abs(again - np.asarray(Image.open(path)))
        assert difference.max() <= (0 if path.suffix == ".png" else 4)  # JPEG, by other libraries


@pytest.mark.parametrize("file", ["own", "dataset_every_key.yaml", "dataset_pairs.yaml"])
def test_old_dataset_description_is_read(command, old: Path, file: str) -> None:
    where = ["--dataset", "folder", "--data-dir", file, "--workers", 0]
    done = command("data", "check", *where, "--json", cwd=old)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["cases"] == 3
    assert outcome["issues"] == []


# Settings and flags


@pytest.mark.parametrize("file", sorted(path.name for path in (FILES / "configs").glob("*.yaml")))
def test_configuration_with_every_old_key_is_read(command, settings: Path, file: str) -> None:
    verb = "classify" if file == "classify.yaml" else "train"
    done = command(verb, "--config", f"configs/{file}", *READ_ONLY, cwd=settings)
    assert_read(done)
    expected = {"data.leave_out_faulty"}
    if verb == "train":
        expected |= {"data.slices.neighbours", "predict.post", "predict.choose_post"}
    assert expected <= notices_of(done)


@pytest.mark.parametrize("verb", ["train", "classify"])
def test_every_old_key_is_accepted_on_the_command_line(command, settings: Path, verb: str) -> None:
    file = "classify.yaml" if verb == "classify" else "train_segnetr.yaml"
    content = yaml.safe_load((settings / "configs" / file).read_text())
    flags = [part for text in assignments(content) for part in ("--set", text)]
    assert len(flags) > 100
    assert_read(command(verb, *flags, *READ_ONLY, cwd=settings))


def assignments(content: dict, before: str = "") -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from assignments(value, f"{before}{key}.")
        else:
            yield f"{before}{key}={json.dumps(value)}"


@pytest.mark.parametrize(("verb", "text"), [(verb, text) for verb in WORDS for text in WORDS[verb]])
def test_every_old_value_of_a_setting_is_accepted(
    command, settings: Path, verb: str, text: str
) -> None:
    flags = [part for item in text.split() for part in ("--set", item)]
    assert_read(command(verb, *flags, *READ_ONLY, cwd=settings))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_old_recipe_is_found(command, settings: Path, recipe: str) -> None:
    verb = "classify" if recipe.startswith("classify/") or "pneumonia" in recipe else "train"
    assert_read(command(verb, "--config", recipe, *READ_ONLY, cwd=settings))
    kind, _, name = recipe.partition("/")
    if kind in {"dataset", "model"}:
        assert_read(command(verb, f"--{kind}", name, *READ_ONLY, cwd=settings))


def test_every_old_flag_is_accepted(command, settings: Path) -> None:
    flags: dict[tuple[str, ...], list[str]] = {}
    for line in (settings / "flags.txt").read_text().splitlines():
        words = line.split()
        at = next(number for number, word in enumerate(words) if word.startswith("-"))
        value = ["1"] if words[-1] == "..." else []
        flags.setdefault(tuple(words[:at]), []).extend([words[at], *value])
    assert len(flags) > 15
    for verb, given in flags.items():
        if verb == ():
            continue  # --version exits before anything else
        renames.announce.cache_clear()
        done = command(*verb, *given, "--help", cwd=settings)
        assert done.returncode == 0, done.stderr
        assert notices_of(done) == {flag for flag in given if flag in renames.FLAGS}

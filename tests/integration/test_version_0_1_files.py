"""Files that version 0.1 wrote are still read, and mean what they meant.

The files lie in `tests/fixtures/version_0_1`; its README says what each of them is. The tests use
the command line and `segnetr.load` alone, so that they hold however the code is laid out.
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

FILES = Path(__file__).parents[1] / "fixtures" / "version_0_1"
MODELS = sorted(path.name for path in (FILES / "models").iterdir())
WORDS = json.loads((FILES / "configs" / "words.json").read_text())
RECIPES = (FILES / "configs" / "recipes.txt").read_text().split()
# What a valid configuration comes to in a command that reads it and then stops, before torch.
READ_ONLY = ["--resume"]
STOPPED = "--resume needs --out"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of all the files; paths in them are relative to this folder."""
    return Path(shutil.copytree(FILES, tmp_path / "old"))


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that no command changes: configurations and the list of flags."""
    folder = tmp_path_factory.mktemp("version_0_1")
    shutil.copytree(FILES / "configs", folder / "configs")
    shutil.copy(FILES / "flags.txt", folder)
    return folder


@pytest.fixture
def run_alone(old: Path, tmp_path: Path):
    """Run `segnetr` in a process with one thread, as the files were written."""

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
    """Name what decides the last bits of a sum; empty where the system does not say."""
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


def assert_alike(found: object, expected: object) -> None:
    """Compare plain data; numbers may differ by what another processor rounds otherwise."""
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        for key, value in expected.items():
            assert_alike(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
    else:
        assert found == expected


def assert_read(done) -> None:
    """Make sure that a command got past its configuration, to the end that was arranged for."""
    assert done.returncode == 2
    assert STOPPED in done.stderr, done.stderr


# Models


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_model_predicts_the_masks_it_predicted(command, old: Path, name: str) -> None:
    inputs = "inputs_volume" if name == "volume" else "inputs"
    arguments = ["--model", f"models/{name}", "--out", "out", "--device", "cpu"]
    done = command("predict", inputs, *arguments, "--quiet", cwd=old)
    assert done.returncode == 0, done.stderr
    expected = json.loads((old / "predictions" / "quality.json").read_text())[name]
    for mask, quality in expected.items():
        found = segnetr.load(old / "models" / name, device="cpu").predict(old / inputs / mask)
        if name != "volume":
            picture = np.asarray(Image.open(old / "out" / mask))
            np.testing.assert_array_equal(
                picture, np.asarray(Image.open(old / "predictions" / name / mask))
            )
            np.testing.assert_array_equal(picture > 0, found.labels > 0)
        assert (found.quality is None) == (quality is None)
    index = json.loads((old / "out" / "predictions.json").read_text())
    assert_alike({item["mask"]: item.get("quality") for item in index["done"]}, expected)


@pytest.mark.slow
def test_volume_model_predicts_the_labels_it_predicted(old: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    found = segnetr.load(old / "models/volume", device="cpu").predict(
        old / "inputs_volume/scan.nii.gz"
    )
    expected = nibabel.load(old / "predictions/volume/scan.nii.gz").get_fdata()
    np.testing.assert_array_equal(found.labels, expected)
    assert len(np.unique(expected)) > 1


@pytest.mark.slow
def test_classifier_gives_the_probabilities_it_gave(command, old: Path) -> None:
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
def test_folds_answer_together_as_they_did(command, old: Path) -> None:
    arguments = ["--model", "runs/folds", "--out", "out", "--device", "cpu", "--quiet"]
    done = command("predict", "inputs", *arguments, cwd=old)
    assert done.returncode == 0, done.stderr
    for path in (old / "predictions/folds").glob("*.png"):
        expected = np.asarray(Image.open(path))
        np.testing.assert_array_equal(np.asarray(Image.open(old / "out" / path.name)), expected)


@pytest.mark.slow
def test_weights_of_an_old_model_start_a_new_training(command, old: Path, tiny) -> None:
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
def test_predictions_of_an_interrupted_job_are_kept_and_completed(command, old: Path) -> None:
    out = old / "predictions/segnetr"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    kept, lost = sorted(out.glob("*.png"))
    lost.unlink()
    arguments = ["--model", "models/segnetr", "--device", "cpu", "--out", out, "--skip-existing"]
    done = command("predict", "inputs", *arguments, "--json", cwd=old)
    assert done.returncode == 0, done.stderr
    assert kept.read_bytes() == before[kept.name]
    found = np.asarray(Image.open(lost))
    shutil.copy(FILES / "predictions/segnetr" / lost.name, old / "before.png")
    np.testing.assert_array_equal(found, np.asarray(Image.open(old / "before.png")))
    rows = read_rows(FILES / "predictions/segnetr/predictions.csv")
    assert [row["predicted_dice"] for row in read_rows(out / "predictions.csv")] == [
        row["predicted_dice"] for row in rows
    ]


@pytest.mark.slow
def test_shards_of_both_versions_are_joined(command, old: Path) -> None:
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
def test_finished_run_is_scored_again_to_the_same_numbers(command, old: Path, name: str) -> None:
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
def test_report_of_an_old_run_is_written_again(command, old: Path, name: str) -> None:
    done = command("report", f"runs/{name}", cwd=old)
    assert done.returncode == 0, done.stderr
    page = (old / "runs" / name / "report.html").read_text()
    assert "segnetr train" in page or "segnetr classify" in page
    if name == "finished":
        # The settings, the scores, the pictures, predicted Dice, the repairs that were tried.
        for word in ("search_postprocessing", "95 %", "data:image/jpeg", "predicted", "threshold:"):
            assert word in page


@pytest.mark.slow
def test_old_runs_are_compared(command, old: Path) -> None:
    shutil.copytree(old / "runs/finished", old / "runs/second")
    done = command("compare", "runs/finished", "runs/second", "--out", "comparison", cwd=old)
    assert done.returncode == 0, done.stderr
    assert (old / "comparison/compare.html").is_file()


@pytest.mark.slow
def test_finished_folds_are_gathered_without_training_again(command, old: Path) -> None:
    config = ["--config", "runs/folds/config.yaml", "--fold", "all", "--folds", 2]
    before = (old / "runs/folds/out_of_fold/per_case.csv").read_bytes()
    done = command("train", *config, "--out", "runs/folds", "--resume", cwd=old)
    assert done.returncode == 0, done.stderr
    assert "done before" in done.stderr
    assert (old / "runs/folds/out_of_fold/per_case.csv").read_bytes() == before


@pytest.mark.slow
def test_finished_row_of_a_benchmark_is_not_trained_again(command, old: Path) -> None:
    arguments = json.loads((old / "benchmark/command.json").read_text())
    done = command(*arguments, "--json", cwd=old)
    assert done.returncode == 0, done.stderr
    assert not (old / "benchmark/runs").exists()


def resumed(kind: str, how: str) -> Iterator[str]:
    """Give the command that goes on with an interrupted run."""
    verb = "classify" if kind == "classifier_interrupted" else "train"
    if how == "its configuration":
        return iter([verb, "--config", f"runs/{kind}/config.yaml", "--out", f"runs/{kind}"])
    provenance = json.loads((FILES / "runs" / kind / "provenance.json").read_text())
    return iter(provenance["command"][1:])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["its configuration", "the command it was started with"])
@pytest.mark.parametrize("kind", ["interrupted", "classifier_interrupted"])
def test_interrupted_run_resumes_and_ends_as_the_unbroken_one(
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
        assert lines[0].read_bytes() == lines[1].read_bytes()
    else:  # other instructions and libraries add up in another order, and steps magnify that
        first, second = ([json.loads(x) for x in path.read_text().splitlines()] for path in lines)
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert (one["step"], one["phase"]) == (other["step"], other["phase"])
            for name in {"total", "loss"} & other.keys():
                is_next = one["step"] == end[kind]["step"] + 1
                assert one[name] == pytest.approx(other[name], rel=0.01 if is_next else 0.2)


# Data sets and splits


@pytest.mark.slow
def test_split_files_of_both_kinds_are_accepted(command, old: Path) -> None:
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
def test_split_is_made_as_it_was(command, old: Path) -> None:
    where = ["--dataset", "drawn", "--data-dir", "data"]
    done = command("data", "split", *where, "--out", "again.json", cwd=old)
    assert done.returncode == 0, done.stderr
    before, again = (json.loads((old / name).read_text()) for name in ("splits.json", "again.json"))
    for key in ("sha256", "train", "validation", "test"):
        assert again[key] == before[key]


@pytest.mark.slow
def test_drawn_set_begins_with_the_pictures_it_began_with(command, old: Path) -> None:
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
def test_described_folder_is_read(command, old: Path, file: str) -> None:
    where = ["--dataset", "folder", "--data-dir", file, "--workers", 0]
    done = command("data", "check", *where, "--json", cwd=old)
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["cases"] == 3
    assert outcome["issues"] == []


# Settings and flags


@pytest.mark.parametrize("file", sorted(path.name for path in (FILES / "configs").glob("*.yaml")))
def test_file_with_every_key_is_read(command, settings: Path, file: str) -> None:
    verb = "classify" if file == "classify.yaml" else "train"
    assert_read(command(verb, "--config", f"configs/{file}", *READ_ONLY, cwd=settings))


@pytest.mark.parametrize("verb", ["train", "classify"])
def test_every_key_is_read_from_the_command_line(command, settings: Path, verb: str) -> None:
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
def test_word_of_a_setting_is_read(command, settings: Path, verb: str, text: str) -> None:
    flags = [part for item in text.split() for part in ("--set", item)]
    assert_read(command(verb, *flags, *READ_ONLY, cwd=settings))


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_found(command, settings: Path, recipe: str) -> None:
    verb = "classify" if recipe.startswith("classify/") or "pneumonia" in recipe else "train"
    assert_read(command(verb, "--config", recipe, *READ_ONLY, cwd=settings))
    kind, _, name = recipe.partition("/")
    if kind in {"dataset", "model"}:
        assert_read(command(verb, f"--{kind}", name, *READ_ONLY, cwd=settings))


def test_every_flag_is_known(command, settings: Path) -> None:
    flags: dict[tuple[str, ...], list[str]] = {}
    for line in (settings / "flags.txt").read_text().splitlines():
        words = line.split()
        at = next(number for number, word in enumerate(words) if word.startswith("-"))
        value = ["1"] if words[-1] == "..." else []
        flags.setdefault(tuple(words[:at]), []).extend([words[at], *value])
    assert len(flags) > 15
    for verb, given in flags.items():
        if verb == ():
            continue  # --version ends before it comes to anything else
        done = command(*verb, *given, "--help", cwd=settings)
        assert done.returncode == 0, done.stderr

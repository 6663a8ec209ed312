"""`segnetr classify` from a file of images to a table of probabilities."""

import csv
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from segnetr.config.schema.classification import load_classify_config
from segnetr.progress import Progress
from segnetr.workflows.classification.train import classify

pytestmark = pytest.mark.slow

SMALL = [
    *(
        "--backbone",
        "mobilevit_xxs",
        "--set",
        "train.image_size=32",
        "--set",
        "train.warmup_steps=1",
    ),
    *("--batch-size", "4", "--workers", "0", "--device", "cpu", "--set", "evaluate.bootstrap=50"),
]


def one_line(done) -> str:
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    return lines[0]


def draw(label: int, number: int) -> np.ndarray:
    """A bright square on the left or on the right."""
    image = np.random.default_rng([label, number]).integers(0, 90, (28, 28)).astype(np.uint8)
    image[8:20, 3 + 12 * label : 13 + 12 * label] += 150
    return image


@pytest.fixture(scope="module")
def npz(tmp_path_factory) -> Path:
    arrays = {}
    for part, count in (("train", 12), ("val", 6), ("test", 6)):
        labels = np.arange(count) % 2
        images = [draw(label, number) for number, label in enumerate(labels)]
        arrays[f"{part}_images"] = np.stack(images)
        arrays[f"{part}_labels"] = labels[:, None].astype(np.uint8)
    path = tmp_path_factory.mktemp("medmnist") / "pneumoniamnist.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def run(command, npz, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "small"
    arguments = ["--dataset", "medmnist", "--data-dir", npz, "--out", out, "--steps", 3]
    done = command("classify", *arguments, *SMALL, "--quiet")
    assert done.returncode == 0, done.stderr
    return out


def test_run_has_the_same_files_as_a_segmentation_run(run):
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.yaml", "splits.json", "provenance.json", "metrics.jsonl", "metrics.csv", "log.txt",
        "tensorboard", "checkpoints", "model", "evaluation", "report.html",
    }  # fmt: skip
    scores = {path.name for path in (run / "evaluation").iterdir()}
    assert scores == {"summary.json", "per_case.csv", "per_class.csv"}
    card = json.loads((run / "model" / "model.json").read_text())
    assert card["backbone"] == "mobilevit_xxs"
    assert card["classes"] == ["normal", "pneumonia"]
    assert card["num_classes"] == 2
    assert card["in_channels"] == 1
    split = json.loads((run / "splits.json").read_text())
    assert split["origin"] == "official"
    assert card["split_sha256"] == split["sha256"]
    assert not [path for path in run.rglob("*") if path.suffix in {".pt", ".pth", ".pkl"}]
    assert "test split, 6 cases" in (run / "report.html").read_text()


class StopAt(Progress):
    """Sends a signal behind a step, as a scheduler would."""

    def __init__(self, step: int) -> None:
        super().__init__(quiet=True)
        self.step = step

    def on_step(self, step, total, terms, rate) -> None:  # noqa: ARG002
        if step == self.step:
            signal.raise_signal(signal.SIGTERM)


def test_terminated_run_resumes_to_the_same_bits_with_mixing_balance_and_average(npz, tmp_path):
    config = load_classify_config(
        flags={"data.dataset": "medmnist", "data.data_dir": npz, "data.workers": 0},
        assignments=[
            "train.image_size=32", "train.batch_size=4", "train.steps=6", "train.device=cpu",
            "train.validate_every=2", "mixing.mixup_alpha=0.4", "mixing.cutmix_alpha=1.0",
            "regularization.balanced_sampling=true", "regularization.class_weights=balanced",
            "regularization.label_smoothing=0.1", "augment.brightness=0.2",
            "regularization.drop_path=0.1", "evaluate.bootstrap=0",
        ],
    )  # fmt: skip
    whole = classify(config, out=tmp_path / "whole", progress=Progress(quiet=True))
    broken = classify(config, out=tmp_path / "broken", progress=StopAt(3))
    assert (whole.stopped, broken.stopped) == ("done", "terminated")
    assert broken.evaluation is None
    resumed = classify(config, out=tmp_path / "broken", resume=True, progress=Progress(quiet=True))
    assert resumed.stopped == "done"
    for name in ("model/model.safetensors", "checkpoints/last/optimizer.safetensors",
                 "checkpoints/last/average.safetensors"):  # fmt: skip
        first, second = (load_file(tmp_path / kind / name) for kind in ("whole", "broken"))
        assert first.keys() == second.keys()
        assert [k for k in first if first[k].tobytes() != second[k].tobytes()] == []
    for name in ("metrics.jsonl", "evaluation/per_case.csv", "splits.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


def test_resume_with_other_labels_or_settings_is_refused(command, run, npz, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    arguments = ["--data-dir", npz, "--out", copy, "--resume", "--config", copy / "config.yaml"]
    other = command("classify", *arguments, "--set", "regularization.label_smoothing=0.2")
    assert other.returncode == 2
    assert "regularization" in one_line(other)
    with np.load(npz) as file:
        arrays = dict(file)
    arrays["train_labels"] = 1 - arrays["train_labels"]
    changed = tmp_path / "pneumoniamnist.npz"
    np.savez(changed, **arrays)
    relabeled = command("classify", *arguments, "--data-dir", changed)
    assert relabeled.returncode == 2
    assert "labels" in one_line(relabeled)


def test_prediction_writes_one_row_per_file_and_skips_a_damaged_file(command, run, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for label in (0, 1):
        Image.fromarray(draw(label, 99)).save(source / f"{label}.png")
    rgb = np.repeat(draw(1, 98)[..., None], 3, axis=2)
    Image.fromarray(rgb).save(source / "color.png")
    (source / "broken.png").write_bytes((source / "0.png").read_bytes()[:-20])
    out = tmp_path / "out"
    done = command("predict", source, "--model", run, "--out", out, "--json")
    assert done.returncode == 3
    assert [Path(f["input"]).name for f in json.loads(done.stdout)["failed"]] == ["broken.png"]
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png", "color.png"]
    for row in rows:
        values = [float(row["p_normal"]), float(row["p_pneumonia"])]
        assert sum(values) == pytest.approx(1)
        assert row["decided"] == ["normal", "pneumonia"][int(np.argmax(values))]
    masks = command("predict", source, "--model", run, "--out", out, "--overlay")
    assert masks.returncode == 2
    assert "classifier" in one_line(masks)


def test_predictions_of_a_second_call_are_added(command, run, tmp_path):
    for label in (0, 1):
        Image.fromarray(draw(label, 99)).save(tmp_path / f"{label}.png")
    out = tmp_path / "out"
    for name in ("0.png", "1.png", "0.png"):
        done = command("predict", tmp_path / name, "--model", run, "--out", out)
        assert done.returncode == 0, done.stderr
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in rows] == ["1.png", "0.png"]
    index = json.loads((out / "predictions.json").read_text())
    assert [Path(record["input"]).name for record in index["done"]] == ["1.png", "0.png"]
    index["done"][0]["probabilities"] = {"other": 1.0}
    (out / "predictions.json").write_text(json.dumps(index))
    done = command("predict", tmp_path / "0.png", "--model", run, "--out", out)
    assert done.returncode == 2
    assert "other classes" in one_line(done)


def test_prediction_of_a_file_equals_that_of_the_evaluation(command, run, npz, tmp_path):
    with np.load(npz) as file:
        Image.fromarray(file["test_images"][2]).save(tmp_path / "x.png")
    done = command("predict", tmp_path / "x.png", "--model", run, "--out", tmp_path / "o", "--json")
    (found,) = json.loads(done.stdout)["done"]
    with (run / "evaluation" / "per_case.csv").open(newline="") as file:
        row = next(r for r in csv.DictReader(file) if r["case_id"] == "test-000002")
    assert found["probabilities"]["pneumonia"] == pytest.approx(float(row["p_pneumonia"]), abs=1e-5)


def test_evaluating_again_other_parts_and_mirrored(command, run, npz, tmp_path):
    again = command("evaluate", run, "--out", tmp_path / "again", "--json")
    assert again.returncode == 0, again.stderr
    first = json.loads((run / "evaluation" / "summary.json").read_text())
    assert json.loads((tmp_path / "again" / "summary.json").read_text()) == first
    part = command("evaluate", run, "--split", "validation", "--tta", "flips", "--json")
    assert "validation split, 6 cases" in json.loads(part.stdout)["title"]
    other = command(
        "evaluate", run, "--dataset", "medmnist", "--data-dir", npz, "--split", "train", "--out",
        tmp_path / "other", "--set", "evaluate.calibration_bins=4", "--json",
    )  # fmt: skip
    assert len(json.loads(other.stdout)["summary"]["bins"]) == 4
    page = command("report", run, "--out", tmp_path / "page.html")
    assert page.returncode == 0
    assert (tmp_path / "page.html").is_file()


def test_written_configuration_repeats_the_run(command, run, tmp_path):
    config = run / "config.yaml"
    done = command("classify", "--config", config, "--out", tmp_path / "again", "--quiet")
    assert done.returncode == 0, done.stderr
    first = load_file(run / "model" / "model.safetensors")
    again = load_file(tmp_path / "again" / "model" / "model.safetensors")
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_several_labels_per_image_from_training_to_prediction(command, tmp_path):
    generator = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 12), ("val", 6), ("test", 6)):
        arrays[f"{part}_images"] = generator.integers(0, 255, (count, 28, 28, 3)).astype(np.uint8)
        labels = np.stack([np.arange(count) >> bit & 1 for bit in range(3)], axis=1)
        arrays[f"{part}_labels"] = labels.astype(np.uint8)
    np.savez(tmp_path / "three.npz", **arrays)
    done = command(
        "classify", "--dataset", "medmnist", "--data-dir", tmp_path / "three.npz", *SMALL,
        "--steps", 2, "--out", tmp_path / "run", "--json", "--set",
        "regularization.class_weights=balanced", "--set", "mixing.mixup_alpha=0.2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)["evaluation"]["summary"]
    assert "exact_match" in {score["metric"] for score in summary["scores"]}
    assert summary["confusions"] == []
    Image.fromarray(arrays["test_images"][1]).save(tmp_path / "x.png")
    out = tmp_path / "out"
    found = command("predict", tmp_path / "x.png", "--model", tmp_path / "run", "--out", out)
    assert found.returncode == 0, found.stderr
    with (out / "predictions.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    held = [f"class {i}" for i in range(3) if float(row[f"p_class {i}"]) >= 0.5]
    assert row["decided"] == "; ".join(held)
    balanced = command(
        "classify", "--config", tmp_path / "run" / "config.yaml", "--out", tmp_path / "other",
        "--set", "regularization.balanced_sampling=true",
    )  # fmt: skip
    assert balanced.returncode == 2
    assert "one label per image" in one_line(balanced)


def test_lesions_of_a_table_stay_together_and_are_resampled_together(command, tmp_path):
    lines = ["image_id,dx,lesion_id"]
    for number in range(24):
        put(tmp_path / "set" / "images" / f"i{number}.png", number)
        lines.append(f"i{number},{'nv' if number // 2 % 2 else 'mel'},L{number // 2}")
    (tmp_path / "set" / "labels.csv").write_text("\n".join(lines))
    done = command(
        "classify", "--dataset", "table", "--data-dir", tmp_path / "set", *SMALL, "--steps", 1,
        "--out", tmp_path / "run", "--set", f"data.cache_dir={tmp_path / 'cache'}", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)["evaluation"]["summary"]
    assert summary["groups"] * 2 == summary["cases"]
    split = json.loads((tmp_path / "run" / "splits.json").read_text())
    lesions = [{int(i[1:]) // 2 for i in split[name]} for name in ("train", "validation", "test")]
    assert sum(map(len, lesions)) == len(set.union(*lesions)) == 12
    assert f"{summary['groups']} groups" in (tmp_path / "run" / "report.html").read_text()


def put(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def test_folder_with_a_damaged_image_is_rejected_unless_it_may_be_skipped(command, tmp_path):
    root = tmp_path / "set"
    for label in "ab":
        for number in range(8):
            put(root / label / f"{number}.png", number)
    torn = root / "a" / "3.png"
    torn.write_bytes(torn.read_bytes()[:-30])
    where = ["--dataset", "imagefolder", "--data-dir", root, "--out", tmp_path / "run"]
    cache = ["--set", f"data.cache_dir={tmp_path / 'cache'}"]
    refused = command("classify", *where, *SMALL, *cache, "--steps", 1, "--quiet")
    assert refused.returncode == 4
    assert "3.png" in one_line(refused)
    assert not (tmp_path / "run" / "checkpoints").exists()
    done = command("classify", *where, *SMALL, *cache, "--steps", 1, "--quiet", "--skip-invalid")
    assert done.returncode == 0, done.stderr
    split = json.loads((tmp_path / "run" / "splits.json").read_text())
    ids = [i for name in ("train", "validation", "test") for i in split[name]]
    assert len(ids) == 15
    assert split["origin"] == "seeded"
    for name in ("validation", "test"):
        assert {i[0] for i in split[name]} == {"a", "b"}


def test_dataset_without_cached_copies_is_read_directly(command, tmp_path):
    for label in "ab":
        for number in range(4):
            put(tmp_path / "set" / label / f"{number}.png", number)
    done = command(
        "classify", "--dataset", "imagefolder", "--data-dir", tmp_path / "set", *SMALL, "--steps",
        1, "--set", "data.cache=false", "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["evaluation"]["summary"]["cases"] >= 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--backbone", "mobilvit_xxs"], 2, "did you mean 'mobilevit_xxs'"),
        (["--backbone", "moa_cifar_base", "--set", "train.image_size=64"], 2, "32 x 32"),
        (["--dataset", "cifar11"], 2, "cifar10"),
        (["--data-dir", "nowhere"], 2, "nowhere"),
        (["--set", "trian.steps=3"], 2, "did you mean 'train'"),
        (["--weights", "nowhere"], 1, "nowhere"),
        (["--pretrained", "nowhere.pth"], 1, "nowhere.pth"),
        (["--set", "regularization.class_weights=[1,2,3]"], 2, "3 numbers for 2 classes"),
        (["--resume"], 2, "--out"),
    ],
)
def test_wrong_usage_is_one_line(command, npz, tmp_path, arguments, code, words):
    where = ["--dataset", "medmnist", "--data-dir", npz]
    done = command("classify", *where, *SMALL, *arguments, "--steps", 1, "--quiet", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in one_line(done)
    assert not list(tmp_path.rglob("checkpoints"))


def test_help_fits_one_screen(command):
    shown = command("classify", "--help")
    assert shown.returncode == 0
    assert len(shown.stdout.splitlines()) <= 75

"""The commands on synthetic images: their files, messages and exit codes."""

import json
import shutil
import signal
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from segnetr.cli.main import COMMANDS

pytestmark = pytest.mark.slow


def one_line(done) -> str:
    """Return the error line of a failed command, and check that there is no traceback."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_run_folder_contains_all_documented_files(trained):
    names = {path.name for path in trained.iterdir()}
    assert {
        "config.yaml",
        "splits.json",
        "provenance.json",
        "metrics.jsonl",
        "metrics.csv",
    } <= names
    assert {"log.txt", "tensorboard", "checkpoints", "model", "evaluation", "report.html"} <= names
    assert not [path for path in trained.rglob("*") if path.suffix in {".pt", ".pth", ".pkl"}]
    summary = json.loads((trained / "evaluation" / "summary.json").read_text())
    assert {"dice", "iou", "isic_jaccard"} <= {row["metric"] for row in summary["summaries"]}
    page = (trained / "report.html").read_text()
    assert "test split, 3 cases" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_written_configuration_reproduces_the_run(command, trained, images, tmp_path):
    config = trained / "config.yaml"
    done = command("train", "--config", config, "--out", tmp_path / "again", "--quiet")
    assert done.returncode == 0, done.stderr
    first = load_file(trained / "model" / "model.safetensors")
    again = load_file(tmp_path / "again" / "model" / "model.safetensors")
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert (trained / "metrics.jsonl").read_text() == (tmp_path / "again/metrics.jsonl").read_text()


def test_terminated_run_resumes_to_bit_identical_weights(start, images, tmp_path, tiny):
    arguments = ["train", "--dataset", "isic2018", "--data-dir", images, "--steps", 30, *tiny]
    arguments += ["--set", "train.validate_every=20", "--set", "train.save_every=1"]
    whole = start(*arguments, "--out", tmp_path / "whole", "--quiet")
    broken = start(*arguments, "--out", tmp_path / "broken", "--quiet")
    while not (tmp_path / "broken/checkpoints/last").exists() and broken.poll() is None:
        time.sleep(0.05)
    broken.send_signal(signal.SIGTERM)
    assert broken.wait(timeout=300) == 143
    assert not (tmp_path / "broken" / "model").exists()
    resumed = start(*arguments, "--out", tmp_path / "broken", "--resume", "--quiet")
    assert resumed.wait(timeout=300) == whole.wait(timeout=300) == 0
    first, second = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "broken")
    )
    assert all(np.array_equal(first[name], second[name]) for name in first)
    for name in ("metrics.jsonl", "metrics.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


def test_prediction_preserves_names_folders_and_grids_and_continues_after_a_bad_file(
    command, trained, images, tmp_path
):
    source = tmp_path / "in"
    (source / "left").mkdir(parents=True)
    good = next(images.glob("*Test_Input/*.jpg"))
    shutil.copy(good, source / "left" / "a.jpg")
    Image.open(good).save(source / "left" / "a.png")
    (source / "broken.jpg").write_bytes(good.read_bytes()[:-200])
    out = tmp_path / "out"
    done = command("predict", source, "--model", trained, "--out", out, "--overlay", "--json")
    assert done.returncode == 3
    outcome = json.loads(done.stdout)
    assert [Path(item["input"]).name for item in outcome["failed"]] == ["broken.jpg"]
    masks = {item["mask"] for item in outcome["done"]}
    assert masks == {"left/a.png", "left/a_jpg.png"}
    mask = np.asarray(Image.open(out / "left" / "a.png"))
    assert mask.shape == np.asarray(Image.open(good)).shape[:2]
    assert set(np.unique(mask)) <= {0, 255}
    assert (out / "left" / "a_overlay.png").is_file()
    index = json.loads((out / "predictions.json").read_text())
    assert len(index["done"]) == 2
    assert len(index["model"]["sha256"]) == 64


def test_volume_prediction_has_the_grid_and_affine_of_the_volume(command, trained, tmp_path):
    affine = np.diag([1.5, 0.7, 3.0, 1.0])
    affine[:3, 3] = (-10, 20, 5)
    volume = np.random.default_rng(0).integers(0, 255, (40, 36, 3)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "v.nii.gz")
    out = tmp_path / "out"
    done = command("predict", tmp_path / "v.nii.gz", "--model", trained, "--out", out)
    assert done.returncode == 0, done.stderr
    mask = nibabel.load(out / "v.nii.gz")
    assert mask.shape == volume.shape
    assert np.array_equal(mask.affine, nibabel.load(tmp_path / "v.nii.gz").affine)


def test_another_dataset_and_a_folder_of_masks_can_be_evaluated(command, trained, images, tmp_path):
    arguments = ["--dataset", "isic2018", "--data-dir", images, "--split", "validation"]
    done = command("evaluate", trained, *arguments, "--out", tmp_path / "scores", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["title"].endswith("3 cases")
    assert (tmp_path / "scores" / "per_case.csv").is_file()
    ground_truth = images / "ISIC2018_Task1_Test_GroundTruth"
    perfect = command(
        "evaluate", "--predictions", ground_truth, "--ground-truth", ground_truth, "--json"
    )
    rows = {row["metric"]: row for row in json.loads(perfect.stdout)["summaries"]}
    assert rows["dice"]["mean"] == rows["iou"]["mean"] == 1.0
    assert rows["hd95_px"]["mean"] == 0.0


def test_invalid_cases_are_listed_and_refused_unless_they_are_skipped(
    command, images, tmp_path, tiny
):
    folder = tmp_path / "isic2018"
    shutil.copytree(images, folder)
    images = sorted((folder / "ISIC2018_Task1-2_Training_Input").glob("*.jpg"))
    images[0].write_bytes(images[0].read_bytes()[:-100])
    next((folder / "ISIC2018_Task1_Test_GroundTruth").glob("*.png")).unlink()
    where = ["--dataset", "isic2018", "--data-dir", folder]
    checked = command("data", "check", *where, "--workers", 0, "--json")
    assert checked.returncode == 4
    kinds = sorted(issue["kind"] for issue in json.loads(checked.stdout)["issues"])
    assert kinds == ["image-unreadable", "mask-missing"]
    refused = command("train", *where, *tiny, "--steps", 2, "--out", tmp_path / "run", "--quiet")
    assert refused.returncode == 4
    assert "2 issues" in one_line(refused)
    assert not (tmp_path / "run" / "checkpoints").exists()
    left_out = ["--skip-invalid", "--out", tmp_path / "run", "--quiet"]
    assert command("train", *where, *tiny, "--steps", 2, *left_out).returncode == 0
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert len(provenance["dataset"]["left_out"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "--dataset", "isic2018"], 2, "challenge.isic-archive.com"),
        (["train", "--dataset", "isic2019"], 2, "did you mean 'isic2018'"),
        (["train", "--model", "segnetrr"], 2, "did you mean 'segnetr'"),
        (["train", "--set", "train.stepz=3"], 2, "'steps'"),
        (["train", "--loss", "dice_cee"], 2, "unknown loss 'dice_cee'; did you mean 'dice_ce'"),
        (["train", "--loss", "wrong"], 2, "tversky"),
        (["train", "--resume"], 2, "--out"),
        (["train", "--device", "tpu"], 2, "tpu"),
        (["predict", "nothing.png", "--model", "none", "--out", "o"], 2, "nothing.png"),
        (["evaluate", "none"], 2, "none"),
        (["report", "none"], 2, "none"),
        (["models", "show", "segnetr_x"], 2, "did you mean"),
    ],
)
def test_invalid_usage_is_one_line_and_exit_code_two(command, tmp_path, arguments, code, words):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in one_line(done)


def test_error_of_an_unknown_flag_suggests_the_closest(command):
    done = command("train", "--epoch", 3)
    assert done.returncode == 2
    assert "--epochs" in done.stderr


def test_changed_model_file_is_rejected_in_one_line(command, trained, images, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(trained / "model", copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    image = next(images.glob("*Test_Input/*.jpg"))
    done = command("predict", image, "--model", copy, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "model.safetensors" in one_line(done)


def test_a_run_in_use_is_not_overwritten(command, trained, images, tiny):
    before = (trained / "metrics.jsonl").read_bytes()
    arguments = ["--dataset", "isic2018", "--data-dir", images, "--out", trained, *tiny]
    done = command("train", *arguments, "--quiet")
    assert done.returncode == 2
    assert "--resume" in one_line(done)
    assert (trained / "metrics.jsonl").read_bytes() == before


def test_output_that_cannot_be_written_is_one_line(command, images, tmp_path, tiny):
    file = tmp_path / "file"
    file.write_text("in the way")
    arguments = ["--dataset", "isic2018", "--data-dir", images, "--steps", 1, *tiny]
    done = command("train", *arguments, "--out", file / "run", "--quiet")
    assert done.returncode == 1
    assert str(file) in one_line(done)
    assert file.read_text() == "in the way"


def test_help_of_every_command_fits_one_screen(command):
    for name in COMMANDS:
        done = command(name, "--help")
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) <= 75


def test_unusable_encoder_weights_are_rejected_before_any_image_is_decoded(
    command, tiny, images, tmp_path
):
    wrong = tmp_path / "wrong.safetensors"
    save_file({"unrelated.weight": np.zeros(3)}, wrong)
    flags = ["--encoder", "mobilevit_xxs", "--encoder-weights", wrong]
    cache = ["--set", f"data.cache_dir={tmp_path / 'cache'}"]
    data = ["--dataset", "isic2018", "--data-dir", images]
    done = command("train", *data, *tiny, *flags, *cache, "--out", tmp_path / "run", "--quiet")
    assert done.returncode != 0
    assert str(wrong) in done.stderr
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "run").exists()

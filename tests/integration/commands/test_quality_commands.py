"""Predicted Dice, flags and maps through the real commands, on synthetic images and volumes."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from support.volume_files import OBLIQUE, draw_volume, write_nifti

import segnetr
from segnetr.data.datasets.synthetic.dataset import draw_dataset
from segnetr.outputs.models.quality_file import has_quality, read_quality
from segnetr.outputs.tables.case_records import read_case_records

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Images of which enough are for validation."""
    folder = tmp_path_factory.mktemp("many") / "isic2018"
    draw_dataset(folder, counts={"train": 6, "validation": 5, "test": 3}, seed=6)
    return folder


@pytest.fixture(scope="module")
def judged(command, many, tiny, tmp_path_factory) -> Path:
    """A run that looks at four views and says how good its masks are."""
    run = tmp_path_factory.mktemp("judged") / "run"
    arguments = ["--dataset", "isic2018", "--data-dir", many, "--out", run, "--steps", 12]
    settings = ["--set", "predict.tta=flips", "--set", f"data.cache_dir={run.parent / 'cache'}"]
    done = command("train", *arguments, *tiny, *settings)
    assert done.returncode == 0, done.stderr
    return run


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def list_dataset_images(folder: Path) -> list[Path]:
    return sorted((folder / "ISIC2018_Task1-2_Test_Input").glob("*.jpg"))


def test_training_calibrates_on_validation_cases_only(judged):
    model = read_quality(judged)
    split = json.loads((judged / "splits.json").read_text())
    text = json.dumps(split)
    assert len(model.cases) == 5
    assert all(case.case_id in text for case in model.cases)
    records = read_case_records(judged / "evaluation" / "cases.json")
    assert not {case.case_id for case in model.cases} & {record.case_id for record in records}
    assert all(record.quality is not None for record in records)
    line = "predicted Dice calibrated on 5 validation cases"
    assert line in (judged / "log.txt").read_text()
    manifest = (judged / "model" / "MANIFEST.sha256").read_text()
    assert "quality.json" in manifest
    assert "quality.safetensors" in manifest


def test_model_with_few_validation_cases_has_no_quality_model_and_says_so(
    command, trained, images, tmp_path
):
    assert not has_quality(trained)
    line = "no predicted Dice: 3 validation patients, at least 5 are needed"
    assert line in (trained / "log.txt").read_text()
    done = command("predict", list_dataset_images(images)[0], "--model", trained, "--out", tmp_path)
    assert done.returncode == 0
    assert done.stderr.count("no predicted Dice") == 1
    (row,) = read_table(tmp_path / "predictions.csv")
    assert row["predicted_dice"] == row["out_of_distribution"] == ""


def test_predictions_are_listed_with_dice_interval_flag_and_reason(command, judged, many, tmp_path):
    strange = tmp_path / "in" / "strange.png"
    strange.parent.mkdir()
    gray = np.random.default_rng(0).integers(0, 40, (64, 64), dtype=np.uint8)
    Image.fromarray(gray).save(strange)
    inputs = [*list_dataset_images(many), strange]
    out = tmp_path / "out"
    done = command("predict", *inputs, "--model", judged, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    rows = {Path(row["input"]).name: row for row in read_table(out / "predictions.csv")}
    assert set(rows) == {path.name for path in inputs}
    for row in rows.values():
        numbers = [float(row[name]) for name in ("dice_low", "predicted_dice", "dice_high")]
        assert 0 <= numbers[0] <= numbers[1] <= numbers[2] <= 1
        assert row["level"] == "0.8"
    assert rows["strange.png"]["out_of_distribution"] == "yes"
    assert "intensity" in rows["strange.png"]["reason"]
    done_records = json.loads((out / "predictions.json").read_text())["done"]
    for record in done_records:
        row = rows[Path(record["input"]).name]
        assert float(row["predicted_dice"]) == record["quality"]["predicted_dice"]
        assert (row["out_of_distribution"] == "yes") == record["quality"]["out_of_distribution"]
    quality = segnetr.load(judged, device="cpu").predict(strange).quality
    assert quality is not None
    assert round(quality.dice, 4) == float(rows["strange.png"]["predicted_dice"])


def test_tables_of_shards_are_merged(command, judged, many, tmp_path):
    images = list_dataset_images(many)
    for shard in ("1/2", "2/2"):
        done = command(
            "predict", *images, "--model", judged, "--out", tmp_path, "--shard", shard, "--quiet"
        )
        assert done.returncode == 0, done.stderr
    rows = read_table(tmp_path / "predictions.csv")
    assert [Path(row["input"]).name for row in rows] == [path.name for path in images]
    assert all(row["predicted_dice"] for row in rows)


def test_quality_is_omitted_on_request_and_if_it_would_not_be_valid(
    command, judged, many, tmp_path
):
    pixels = list_dataset_images(many)[0]
    asked = command("predict", pixels, "--model", judged, "--out", tmp_path / "a", "--no-quality")
    assert asked.returncode == 0
    assert "predicted Dice" not in asked.stderr
    other = command("predict", pixels, "--model", judged, "--out", tmp_path / "b", "--tta", "none")
    assert "it is calibrated for predict.tta=flips, not none" in other.stderr
    for name in ("a", "b"):
        assert read_table(tmp_path / name / "predictions.csv")[0]["predicted_dice"] == ""
    (flagged,) = read_table(tmp_path / "b" / "predictions.csv")
    assert flagged["out_of_distribution"] in ("yes", "no")
    assert float(flagged["ood_score"]) > 0
    whole = command("predict", pixels, "--model", judged, "--out", tmp_path / "c")
    assert whole.returncode == 0
    masks = [next((tmp_path / name).glob("*.png")).read_bytes() for name in ("a", "c")]
    assert masks[0] == masks[1]


@pytest.mark.parametrize(
    ("setting", "is_flagged"), [("tta=none", True), ("overlap=0.1", True), ("mode=window", False)]
)
def test_flag_remains_if_only_the_combination_of_passes_differs(
    command, judged, tmp_path, setting, is_flagged
):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    done = command(
        "predict", tmp_path / "noise.png", "--model", judged, "--out", tmp_path / "out",
        "--set", f"predict.{setting}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = read_table(tmp_path / "out" / "predictions.csv")
    assert row["predicted_dice"] == ""
    assert row["out_of_distribution"] == ("yes" if is_flagged else "")
    assert ("1 out of distribution" in done.stdout) is is_flagged


def test_report_plots_predicted_against_true_dice_with_badges(judged):
    page = (judged / "report.html").read_text()
    assert "Quality estimation" in page
    assert "Predicted against true Dice: Spearman" in page
    assert page.count('<span class="badge') >= 3 + 3  # a row and a image for each test case


def test_calibration_cases_get_their_out_of_fold_prediction(command, judged, tmp_path):
    done = command("evaluate", judged, "--split", "validation", "--out", tmp_path / "v", "--quiet")
    assert done.returncode == 0, done.stderr
    left_out = {case.case_id: case.predicted for case in read_quality(judged).cases}
    records = read_case_records(tmp_path / "v" / "cases.json")
    assert {record.case_id: record.quality.dice for record in records} == left_out


def test_uncertainty_maps_of_an_image_are_images_of_its_size(command, judged, many, tmp_path):
    pixels = list_dataset_images(many)[0]
    arguments = ["--model", judged, "--out", tmp_path, "--save-uncertainty"]
    done = command("predict", pixels, *arguments)
    assert done.returncode == 0, done.stderr
    with Image.open(pixels) as image:
        size = image.size
    for kind in ("entropy", "variance"):
        with Image.open(tmp_path / f"{pixels.stem}_{kind}.png") as synthetic:
            assert synthetic.size == size
            values = np.asarray(synthetic).astype(float)
        assert 0 < values.max() <= 65535
    (tmp_path / f"{pixels.stem}_entropy.png").unlink()
    again = command("predict", pixels, *arguments, "--skip-existing", "--json")
    assert json.loads(again.stdout)["skipped"] == 0
    once_more = command("predict", pixels, *arguments, "--skip-existing", "--json")
    assert json.loads(once_more.stdout)["skipped"] == 1


def test_uncertainty_maps_of_a_volume_keep_its_geometry_under_a_memory_limit(
    command, judged, tmp_path
):
    path = write_nifti(tmp_path / "in" / "v.nii.gz", draw_volume((40, 36, 3))[0], affine=OBLIQUE)
    arguments = [path, "--model", judged, "--save-uncertainty"]
    done = command("predict", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    image = nib.load(path)
    maps = {}
    for kind in ("entropy", "variance"):
        stored = nib.load(tmp_path / "out" / f"v_{kind}.nii.gz")
        assert stored.shape == image.shape
        assert stored.affine.tobytes() == image.affine.tobytes()
        for field in ("qform_code", "sform_code", "pixdim", "srow_x", "quatern_b"):
            assert stored.header[field].tobytes()[:16] == image.header[field].tobytes()[:16]
        maps[kind] = np.asarray(stored.dataobj)
        assert maps[kind].dtype == np.float32
    assert 0 <= maps["entropy"].min() <= maps["entropy"].max() <= 1
    assert 0 <= maps["variance"].min() <= maps["variance"].max() <= 0.25
    (row,) = read_table(tmp_path / "out" / "predictions.csv")
    assert row["out_of_distribution"] == "yes"
    assert row["reason"].startswith("a volume, trained on images")
    limited = command("predict", *arguments, "--out", tmp_path / "l", "--max-memory", "32G")
    assert limited.returncode == 0, limited.stderr
    for kind, values in maps.items():
        again = np.asarray(nib.load(tmp_path / "l" / f"v_{kind}.nii.gz").dataobj)
        assert np.allclose(again, values, atol=1e-5)


def test_disabled_quality_fits_nothing(command, many, tiny, tmp_path):
    arguments = ["--dataset", "isic2018", "--data-dir", many, "--out", tmp_path / "run"]
    settings = ["--steps", 2, "--set", "predict.quality=false"]
    done = command("train", *arguments, *tiny, *settings, "--quiet")
    assert done.returncode == 0, done.stderr
    assert not has_quality(tmp_path / "run")
    assert "predicted Dice" not in (tmp_path / "run" / "log.txt").read_text()

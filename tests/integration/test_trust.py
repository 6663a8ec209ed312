"""Comparison, Python API and postprocessing through the real commands."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from support.volume_files import draw_volume, write_acdc, write_nifti

import segnetr
from segnetr.errors import ReadError, UsageError
from segnetr.outputs.models.model_file import read_card
from segnetr.workflows.comparison import figures as compare_images
from segnetr.workflows.prediction.model_folder import open_predictor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def other(command, images, trained, tiny, tmp_path_factory) -> Path:
    """A second run on the same split, another seed, told to choose repairs."""
    run = tmp_path_factory.mktemp("runs") / "other"
    arguments = ["--dataset", "isic2018", "--data-dir", images, "--out", run, "--steps", 4]
    choices = ["--seed", 3, "--set", "predict.search_postprocessing=true"]
    cache = ["--set", f"data.cache_dir={trained.parent / 'cache'}"]
    done = command("train", *arguments, *tiny, *choices, *cache, "--quiet")
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="module")
def hearts(command, tiny, tmp_path_factory) -> Path:
    """A run on volumes of hearts with an official test part."""
    folder = tmp_path_factory.mktemp("hearts")
    write_acdc(folder, 3)
    write_acdc(folder, 2, part="testing", first=101)
    changes = ["--set", f"data.cache_dir={folder / 'cache'}", "--set", "train.validate_every=4"]
    data = ["--dataset", "acdc", "--data-dir", folder]
    out = folder / "run"
    done = command("train", *data, *tiny, *changes, "--steps", 4, "--out", out, "--quiet")
    assert done.returncode == 0, done.stderr
    return out


def test_comparison_has_images_of_the_largest_differences(command, trained, other, tmp_path):
    done = command("compare", trained, other, "--out", tmp_path / "c", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["comparisons"][0]["cases"] == 3
    page = (tmp_path / "c" / "compare.html").read_text()
    assert "no images" not in page
    differing = len(re.findall(r'<img src="data:image/jpeg[^"]*" alt="[^"]+"', page))
    changed = json.loads(done.stdout)["comparisons"][0]
    assert differing == 3 - changed["equal"]
    assert "train.seed" in page


def test_comparison_images_use_the_test_time_augmentation_of_the_scores(
    command, trained, tmp_path, monkeypatch
):
    mirrored = tmp_path / "mirrored"
    shutil.copytree(trained, mirrored)
    assert command("evaluate", mirrored, "--tta", "flips", "--quiet").returncode == 0
    opened = []

    def open_and_note(path, **options):
        opened.append((path, options["changes"]))
        return open_predictor(path, **options)

    monkeypatch.setattr(compare_images, "open_predictor", open_and_note)
    done = command("compare", trained, mirrored, "--out", tmp_path / "c")
    assert done.returncode == 0, done.stderr
    assert opened == [(trained, {"tta": "none"}), (mirrored, {"tta": "flips"})]
    assert "different --tta (tiny none, mirrored flips)" in done.stdout


def test_postprocessing_is_tested_on_validation_and_written_to_the_model(other):
    card = read_card(other)
    assert {trial.step for trial in card.postprocessing_trials} >= {
        "largest_component",
        "fill_holes",
    }
    assert all(trial.cases == 3 and not trial.taken for trial in card.postprocessing_trials)
    assert (card.predict.postprocessing, card.predict.threshold) == (
        (),
        0.5,
    )  # three patients decide nothing
    assert not card.predict.search_postprocessing
    assert "fewer than 6 patients" in (other / "log.txt").read_text()
    assert "Postprocessing" in (other / "report.html").read_text()


def test_postprocessing_search_is_rejected_by_predict(command, trained, images, tmp_path):
    arguments = [
        "--model",
        trained,
        "--out",
        tmp_path / "o",
        "--set",
        "predict.search_postprocessing=true",
    ]
    done = command("predict", images, *arguments)
    assert done.returncode == 2
    assert "predict.search_postprocessing is for segnetr train" in done.stderr


def test_evaluation_records_cases_and_the_report_shows_them(trained):
    folder = trained / "evaluation"
    assert len(json.loads((folder / "cases.json").read_text())["cases"]) == 3
    assert (folder / "sizes.csv").read_text().count("\n") == 4
    assert json.loads((folder / "reliability.json").read_text())["cases"] == 3
    page = (trained / "report.html").read_text()
    for words in ("Dice by class", "Area, lesion", "Are the probabilities calibrated?",
                  "License of the model", "Prediction of a case", "4 steps in"):  # fmt: skip
        assert words in page, words


def test_report_on_hearts_has_ejection_fractions_and_sliders_without_script(hearts):
    table = (hearts / "evaluation" / "ejection.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 2  # two patients, two ventricles
    page = (hearts / "report.html").read_text()
    assert "Ejection fraction, left ventricle" in page
    assert "Dice by group" in page
    sliders = re.findall(r'<fieldset class="slices".*?</fieldset>', page)
    assert len(sliders) == 4
    for slider in sliders:
        count = slider.count('type="radio"')
        assert slider.count("<img") == count > 1
        assert slider.count(" checked") == 1
    assert "<script" not in page
    assert len(page) < 10_000_000


def test_python_api_gives_the_labels_of_the_command(command, trained, images, tmp_path):
    path = sorted(images.glob("*Test_Input/*.jpg"))[0]
    settings = ["--tta", "flips", "--set", "predict.threshold=0.45", "--save-prob"]
    done = command("predict", path, "--model", trained, "--out", tmp_path / "o", *settings)
    assert done.returncode == 0, done.stderr
    mask, probability = (
        np.asarray(Image.open(tmp_path / "o" / f"{path.stem}{end}.png")) for end in ("", "_prob")
    )
    model = segnetr.load(trained, device="cpu", tta="flips", threshold=0.45)
    assert model.classes == ("background", "lesion")
    pixels = np.asarray(Image.open(path))
    for image in (path, str(path), pixels):
        found = model.predict(image, probabilities=True)
        np.testing.assert_array_equal(found.labels * 255, mask)
        # Four steps of training may leave one class alone: the probabilities differ everywhere.
        np.testing.assert_array_equal(np.rint(found.probabilities[1] * 65535), probability)
        np.testing.assert_allclose(found.probabilities.sum(axis=0), 1, atol=1e-5)
    assert np.unique(probability).size > 100
    plain = model.predict(pixels)
    assert plain.probabilities is None
    np.testing.assert_array_equal(plain.labels * 255, mask)


def test_the_example_of_the_readme_runs(trained, images, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    code = re.search(r"## Python\n\n```python\n(.*?)```", text, re.DOTALL).group(1)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first").symlink_to(trained)
    shutil.copy(sorted(images.glob("*Test_Input/*.jpg"))[0], tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    np.testing.assert_array_equal(names["prediction"].labels, names["same"].labels)
    with Image.open("photo.jpg") as photo:
        shape = photo.size[::-1]
    assert capsys.readouterr().out == f"{shape} ('background', 'lesion')\n"


def test_python_api_gives_the_labels_of_the_command_for_volumes(command, hearts, tmp_path):
    values, _ = draw_volume((20, 24, 5), seed=3)
    path = write_nifti(tmp_path / "scan.nii.gz", values)
    done = command("predict", path, "--model", hearts, "--out", tmp_path / "o", "--save-prob")
    assert done.returncode == 0, done.stderr
    labels, probabilities = (
        np.asarray(nib.load(tmp_path / "o" / name).dataobj)
        for name in ("scan.nii.gz", "scan_prob.nii.gz")
    )
    model = segnetr.load(hearts, device="cpu")
    for image, options in ((str(path), {}), (values, {"spacing": (1.5, 1.5, 3.0)})):
        found = model.predict(image, probabilities=True, **options)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_array_equal(np.moveaxis(found.probabilities, 0, -1), probabilities)
    assert np.unique(probabilities).size > 100


def test_python_api_reads_the_named_dicom_series(hearts, tmp_path):
    pytest.importorskip("pydicom")
    from support.dicom_files import ROOT_UID, draw_voxels, write_series

    folder = write_series(tmp_path / "study", draw_voxels(0))
    wanted = f"{ROOT_UID}.4"
    for path in write_series(
        tmp_path / "aside", draw_voxels(1), SeriesInstanceUID=wanted
    ).iterdir():
        path.rename(folder / f"second-{path.name}")
    model = segnetr.load(hearts, device="cpu")
    with pytest.raises(ReadError, match="2 series, choose one"):
        model.predict(folder)
    found = model.predict(folder, series=wanted, probabilities=True)
    same = model.predict(draw_voxels(1), spacing=(1.25, 0.75, 2.5), probabilities=True)
    np.testing.assert_array_equal(found.probabilities, same.probabilities)


def test_invalid_arrays_are_rejected(trained, hearts):
    images, volumes = (segnetr.load(run, device="cpu") for run in (trained, hearts))
    for model, array, options, error, message in (
        (images, np.zeros(5), {}, ReadError, r"its shape is \(5,\)"),
        (images, np.zeros((9, 9, 2), np.uint8), {}, ReadError, "2 channels where 3"),
        (images, np.full((9, 9), np.nan), {}, ReadError, "NaN"),
        (images, np.zeros((9, 9), int), {}, ReadError, "int64; give uint8"),
        (images, np.full((9, 9), 255.0), {}, ReadError, "255 to 255; floats go from 0 to 1"),
        (images, np.zeros((9, 9), complex), {}, ReadError, "complex128"),
        (images, np.zeros((9, 9), np.uint8), {"spacing": (1, 0)}, UsageError, "above 0"),
        (volumes, np.zeros((9, 9), np.int16), {}, ReadError, r"\(X, Y, Z\)"),
        (volumes, np.zeros((9, 9, 4, 2), np.int16), {}, ReadError, "2 values per voxel"),
        (volumes, np.zeros((9, 9, 4), np.int16), {}, UsageError, r"give spacing=\(x, y, z\)"),
        (images, "photo.jpg", {"spacing": (1, 1)}, UsageError, "is a file"),
    ):
        with pytest.raises(error, match=message):
            model.predict(array, **options)

"""Test training, prediction, evaluation and errors for volumes with the real commands."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.volume_files import OBLIQUE, draw_volume, write_acdc, write_nifti, write_task

from segnetr.data.readers.read_files import read_image

SHAPE = (20, 24, 6)


@pytest.fixture(scope="module")
def trained_on_volumes(command, tiny, tmp_path_factory) -> Path:
    """Train on volumes whose slices are padded, stacked with neighbors and resampled."""
    folder = tmp_path_factory.mktemp("task")
    run = folder / "run"
    settings = {
        "data.cache_dir": folder / "cache",
        "data.slices.neighbors": 1,
        "data.slices.spacing_mm": 1.2,
        "data.slices.empty_share": 0.2,
        "predict.mode": "window",
        "train.validate_every": 2,
    }
    changes = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    data = ["--dataset", "decathlon", "--data-dir", write_task(folder, 6)]
    done = command("train", *data, *tiny, *changes, "--steps", 4, "--out", run, "--quiet")
    assert done.returncode == 0, done.stderr
    return run


def test_run_on_volumes_is_validated_per_case_and_scored_in_millimeters(
    trained_on_volumes: Path,
) -> None:
    lines = (trained_on_volumes / "metrics.jsonl").read_text().splitlines()
    validations = [line for line in map(json.loads, lines) if line["phase"] == "validation"]
    assert [line["step"] for line in validations] == [2, 4]
    summary = json.loads((trained_on_volumes / "evaluation" / "summary.json").read_text())
    text = json.dumps(summary)
    assert "hd95_mm" in text
    assert '"far"' in text
    assert (trained_on_volumes / "report.html").is_file()
    split = json.loads((trained_on_volumes / "splits.json").read_text())
    parts = [set(split[name]) for name in ("train", "validation", "test")]
    assert sum(map(len, parts)) == 6  # cases are split, not slices
    assert set.union(*parts) == {f"box_{number:03d}" for number in range(6)}


def test_model_card_records_how_volumes_are_sliced(trained_on_volumes: Path) -> None:
    card = json.loads((trained_on_volumes / "model" / "model.json").read_text())
    assert card["in_channels"] == 3
    assert card["spatial_dims"] == 3
    assert card["slices"]["spacing_mm"] == [1.2, 1.2]
    assert card["intensity"]["kind"] == "percentiles"


def test_predicted_mask_has_the_grid_of_an_oblique_volume(
    command, trained_on_volumes: Path, tmp_path: Path
) -> None:
    values, _ = draw_volume((31, 43, 9), seed=7)
    path = write_nifti(tmp_path / "in" / "scan.nii.gz", values, OBLIQUE)
    model = ["--model", trained_on_volumes]
    done = command("predict", path, *model, "--out", tmp_path / "out", "--overlay", "--quiet")
    assert done.returncode == 0, done.stderr
    mask = read_image(tmp_path / "out" / "scan.nii.gz")
    assert mask.array.shape == (31, 43, 9)
    np.testing.assert_array_equal(mask.affine, read_image(path).affine)


def test_evaluating_a_trained_run_again_reproduces_its_scores(
    command, trained_on_volumes: Path, tmp_path: Path
) -> None:
    done = command("evaluate", trained_on_volumes, "--out", tmp_path / "again", "--quiet")
    assert done.returncode == 0, done.stderr
    first = (trained_on_volumes / "evaluation" / "per_case.csv").read_text()
    assert (tmp_path / "again" / "per_case.csv").read_text() == first


def shift(image: Path, mask: Path) -> None:
    write_nifti(mask, np.asarray(nib.load(mask).dataobj), OBLIQUE)


def shrink(image: Path, mask: Path) -> None:
    write_nifti(mask, np.asarray(nib.load(mask).dataobj)[:, :-2])


def respace(image: Path, mask: Path) -> None:
    write_nifti(mask, np.asarray(nib.load(mask).dataobj), np.diag([1.5, 1.5, 8.0, 1.0]))


def relabel(image: Path, mask: Path) -> None:
    write_nifti(mask, np.full(SHAPE, 9, np.uint8))


def make_film(image: Path, mask: Path) -> None:
    write_nifti(image, np.zeros((*SHAPE, 5), np.int16))


def spoil_affine(image: Path, mask: Path) -> None:
    header = bytearray(nib.Nifti1Image(np.zeros(SHAPE, np.int16), np.eye(4)).to_bytes())
    header[280:284] = np.float32("nan").tobytes()  # srow_x
    image.write_bytes(gzip.compress(bytes(header)))


def truncate(image: Path, mask: Path) -> None:
    image.write_bytes(image.read_bytes()[:-40])


BROKEN: dict[str, tuple[Callable[[Path, Path], None], str, str]] = {
    "moved mask": (shift, "grid-mismatch", "voxels away"),
    "mask of another size": (shrink, "size-mismatch", "20 x 22 x 6, but its image"),
    "mask of another spacing": (respace, "grid-mismatch", "1.5 x 1.5 x 8 mm"),
    "label outside the list": (relabel, "mask-values", "the value 9 where 0 to 3"),
    "film": (make_film, "image-unreadable", "it has 4 axes (20, 24, 6, 5)"),
    "NaN in the affine": (spoil_affine, "image-unreadable", "NaN"),
    "torn file": (truncate, "image-unreadable", "cut off"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_volume_gives_a_one_line_error_and_exit_code_4(
    command, tiny, tmp_path: Path, name: str
) -> None:
    corrupt, kind, message = BROKEN[name]
    write_acdc(tmp_path, 1)
    (image,) = tmp_path.rglob("patient001_frame01.nii.gz")
    (mask,) = tmp_path.rglob("patient001_frame01_gt.nii.gz")
    corrupt(image, mask)
    data = ["--dataset", "acdc", "--data-dir", tmp_path]
    checked = command("data", "check", *data, "--workers", 0, "--quiet")
    assert checked.returncode == 4
    (line,) = [line for line in checked.stdout.splitlines() if line.startswith(kind)]
    assert message in line
    assert "patient001_frame01" in line
    cache = ["--set", f"data.cache_dir={tmp_path / 'cache'}"]
    refused = command("train", *data, *tiny, *cache, "--out", tmp_path / "run", "--quiet")
    assert refused.returncode == 4
    (line,) = [line for line in refused.stderr.splitlines() if line]
    assert message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.intensity.kind=per_image"], "is for images"),
        (["data.slices.spacing_mm=1.0", "predict.mode=resize"], "predict.mode=window"),
        (["data.slices.axis=3"], "data.slices.axis"),
        (["data.intensity.kind=window"], "a window needs low below high"),
    ],
)
def test_settings_that_do_not_fit_volumes_are_rejected_early(
    command, tiny, tmp_path: Path, changes: list[str], message: str
) -> None:
    data = ["--dataset", "decathlon", "--data-dir", write_task(tmp_path, 3)]
    settings = [part for change in changes for part in ("--set", change)]
    done = command("train", *data, *tiny, *settings, "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("change", ["data.slices.neighbors=1", "data.intensity.kind=per_volume"])
def test_volume_settings_are_rejected_for_images(
    command, tiny, images: Path, tmp_path: Path, change: str
) -> None:
    data = ["--dataset", "isic2018", "--data-dir", images]
    done = command("train", *data, *tiny, "--set", change, "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 2
    assert "is for volumes" in done.stderr


def test_dataset_with_only_empty_masks_gives_a_one_line_error_and_exit_code_4(
    command, tiny, tmp_path: Path
) -> None:
    folder = write_task(tmp_path, 3)
    for path in (folder / "labelsTr").iterdir():
        write_nifti(path, np.zeros(SHAPE, np.uint8))
    data = ["--dataset", "decathlon", "--data-dir", folder]
    cache = ["--set", f"data.cache_dir={tmp_path / 'cache'}"]
    done = command("train", *data, *tiny, *cache, "--out", tmp_path / "run", "--quiet")
    assert done.returncode == 4
    assert "it has no foreground" in done.stderr


def test_broken_task_file_gives_a_one_line_error_and_exit_code_4(command, tmp_path: Path) -> None:
    folder = write_task(tmp_path, 1)
    (folder / "dataset.json").write_text("{")
    done = command("data", "check", "--dataset", "decathlon", "--data-dir", folder, "--quiet")
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1


def test_bad_volume_does_not_stop_the_other_inputs(
    command, trained_on_volumes: Path, tmp_path: Path
) -> None:
    values, _ = draw_volume(SHAPE)
    good = write_nifti(tmp_path / "in" / "good.nii.gz", values)
    write_nifti(tmp_path / "in" / "film.nii.gz", np.zeros((*SHAPE, 2), np.int16))
    shutil.copy(good, tmp_path / "in" / "torn.nii.gz")
    truncate(tmp_path / "in" / "torn.nii.gz", good)
    out = ["--model", trained_on_volumes, "--out", tmp_path / "out", "--quiet"]
    done = command("predict", tmp_path / "in", *out)
    assert done.returncode == 3
    assert "4 axes" in done.stdout
    assert "cut off" in done.stdout
    assert (tmp_path / "out" / "good.nii.gz").is_file()

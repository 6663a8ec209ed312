"""`segnetr data init` describes folders by looking, and changes nothing but the description."""

import hashlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from segnetr.data.datasets.folder.dataset import describe_folder
from segnetr.data.validation.audit import check_cases, check_pairs
from segnetr.errors import UsageError
from segnetr.workflows.datasets.init import init_folder

GRAY = np.full((24, 30), 90)
COLOR = np.dstack([GRAY, GRAY + 20, GRAY])


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def mask(*values: int) -> np.ndarray:
    rows = np.zeros((24, 30))
    for row, value in enumerate(values):
        rows[4 * row : 4 * row + 4] = value
    return rows


def fill(
    root: Path, images: str, masks: str, *, ground_truth: np.ndarray, image: np.ndarray = GRAY
) -> Path:
    for name in ("a1", "b2", "c3"):
        save(root / images.replace("@", name), image)
        save(root / masks.replace("@", name), ground_truth)
    return root


def snapshot(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("images", "masks", "pattern"),
    [
        ("images/@.png", "masks/@.png", ("images/{id}.*", "masks/{id}.*")),
        ("img/@.jpg", "GT/@_segmentation.png", ("img/{id}.*", "GT/{id}_segmentation.*")),
        ("@.png", "@_mask.png", ("{id}.*", "{id}_mask.*")),
        (
            "train/images/@.png",
            "train/masks/@.png",
            ("{split}/images/{id}.*", "{split}/masks/{id}.*"),
        ),
        (
            "images/val/@.png",
            "labels/val/@.png",
            ("images/{split}/{id}.*", "labels/{split}/{id}.*"),
        ),
        ("s/@/images/@.png", "s/@/masks/0@0.png", ("s/{id}/images/{id}.*", "s/{id}/masks/*.*")),
    ],
)
def test_usual_layouts_are_found_and_described_so_that_they_are_read(
    tmp_path, images, masks, pattern
):
    root = fill(tmp_path / "mine", images, masks, ground_truth=mask(255))
    before = snapshot(root)
    outcome = init_folder(root)
    after = snapshot(root)
    assert after.pop("dataset.yaml")
    assert after == before
    assert (outcome.content["images"], outcome.content["masks"]) == pattern
    assert outcome.content["name"] == "mine"
    spec = describe_folder(root)
    cases = spec.read_cases(root)
    assert [case.case_id for case in cases] == ["a1", "b2", "c3"]
    assert check_pairs(cases) == check_cases(cases, spec) == []


def test_five_sibling_folders_are_taken_for_patients(tmp_path):
    for patient in range(5):
        for number in range(2):
            save(tmp_path / f"p{patient}" / f"{patient}{number}.png", GRAY)
            save(tmp_path / f"p{patient}" / f"{patient}{number}_mask.png", mask(1))
    outcome = init_folder(tmp_path)
    assert outcome.content["images"] == "{patient}/{id}.*"
    assert any("5 patients, for example p0" in line for line in outcome.found)
    assert not any("patients:" in line for line in outcome.undecided)


def test_table_of_pairs_is_taken_where_one_lies_there(tmp_path):
    fill(tmp_path, "x/@.png", "y/@.png", ground_truth=mask(1, 2))
    (tmp_path / "pairs.csv").write_text("image,mask\nx/a1.png,y/b2.png\n")
    outcome = init_folder(tmp_path)
    assert outcome.content["pairs"] == "pairs.csv"
    assert [case.case_id for case in describe_folder(tmp_path).read_cases(tmp_path)] == ["a1"]


@pytest.mark.parametrize(
    ("ground_truth", "classes"),
    [
        (mask(255), ["background", "object"]),
        (mask(1), ["background", "object"]),
        (mask(1, 2, 3), ["background", "class_1", "class_2", "class_3"]),
        (mask(128, 255), {"background": 0, "class_1": 128, "class_2": 255}),
        (
            np.dstack([mask(255), mask(0), mask(0, 200)]),
            {"background": "#000000", "class_1": "#0000c8", "class_2": "#ff0000"},
        ),
    ],
)
def test_values_of_the_masks_become_classes(tmp_path, ground_truth, classes):
    fill(tmp_path, "images/@.png", "masks/@.png", ground_truth=ground_truth)
    outcome = init_folder(tmp_path)
    assert outcome.content["classes"] == classes
    spec = describe_folder(tmp_path)
    assert spec.classes == tuple(classes)
    assert check_cases(spec.read_cases(tmp_path), spec) == []


def test_channels_are_what_the_images_show_and_not_what_their_files_store(tmp_path):
    gray = fill(tmp_path / "g", "images/@.png", "masks/@.png", ground_truth=mask(1), image=GRAY)
    stored = np.dstack([GRAY] * 3)
    rgb_gray = fill(
        tmp_path / "s", "images/@.png", "masks/@.png", ground_truth=mask(1), image=stored
    )
    color = fill(tmp_path / "c", "images/@.png", "masks/@.png", ground_truth=mask(1), image=COLOR)
    found = [init_folder(root).content["channels"] for root in (gray, rgb_gray, color)]
    assert found == [1, 1, 3]


def test_volumes_are_known_as_volumes(tmp_path):
    for folder, values in (("imagesTr", 7.5), ("labelsTr", 1)):
        (tmp_path / folder).mkdir()
        voxels = np.full((6, 7, 8), values, dtype=np.float32)
        voxels[0] = 0
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / folder / "v.nii.gz")
    outcome = init_folder(tmp_path)
    assert (outcome.content["spatial_dims"], outcome.content["channels"]) == (3, 1)
    assert outcome.content["images"] == "imagesTr/{id}.*"


@pytest.mark.parametrize(
    ("ground_truth", "words"),
    [
        (mask(0), "the masks contain the value 0"),
        (np.random.default_rng(0).integers(0, 255, (24, 30)), "or more"),
        (255 - mask(255), "if it is the background"),
    ],
)
def test_what_cannot_be_decided_is_said(tmp_path, ground_truth, words):
    fill(tmp_path, "images/@.png", "masks/@.png", ground_truth=ground_truth)
    outcome = init_folder(tmp_path)
    assert any(words in line for line in outcome.undecided)
    assert outcome.content["classes"] == ["background", "object"]
    assert all(f"# to decide: {line}" in outcome.file.read_text() for line in outcome.undecided)
    describe_folder(tmp_path)


def test_description_is_not_replaced_unless_told(tmp_path):
    fill(tmp_path, "images/@.png", "masks/@.png", ground_truth=mask(1))
    (tmp_path / "dataset.yaml").write_text("mine")
    with pytest.raises(UsageError, match="--overwrite"):
        init_folder(tmp_path)
    assert (tmp_path / "dataset.yaml").read_text() == "mine"
    init_folder(tmp_path, overwrite=True)
    assert describe_folder(tmp_path).classes == ("background", "object")


def test_description_written_elsewhere_leaves_the_folder_as_it_is(tmp_path):
    root = fill(tmp_path / "data", "images/@.png", "masks/@.png", ground_truth=mask(1))
    (root / "LICENSE.txt").write_text("CC0")
    before = snapshot(root)
    out = tmp_path / "new" / "mine.yaml"
    outcome = init_folder(root, out=out)
    assert snapshot(root) == before
    assert len(describe_folder(out).read_cases(out)) == 3
    assert "license file LICENSE.txt" in outcome.found
    assert f"--data-dir {out}" in str(outcome)
    with pytest.raises(UsageError, match="expected a file name"):
        init_folder(root, out=tmp_path / "new")


def test_invalid_files_are_counted_and_left_for_the_check(tmp_path):
    fill(tmp_path, "images/@.png", "masks/@.png", ground_truth=mask(1))
    (tmp_path / "images" / "a1.png").write_bytes(b"no image")
    (tmp_path / "masks" / "b2.png").write_bytes(b"")
    save(tmp_path / "images" / "alone.png", GRAY)
    found = "\n".join(init_folder(tmp_path).found)
    for words in (
        "3 images with masks",
        "1 unreadable images",
        "1 unreadable masks",
        "1 cases without image or mask",
    ):
        assert words in found


def test_folder_without_pairs_says_what_to_do(tmp_path):
    save(tmp_path / "a.png", GRAY)
    with pytest.raises(UsageError, match=r"found 1 images, but no image with a mask.*pairs\.csv"):
        init_folder(tmp_path)
    assert not (tmp_path / "dataset.yaml").exists()
    with pytest.raises(UsageError, match="no such folder"):
        init_folder(tmp_path / "none")


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "count"), [("dsb2018", 40), ("isic2018_layout", 30), ("msd_hippocampus", 60)]
)
def test_real_excerpts_are_described_without_help(real_data, tmp_path, folder, count):
    out = tmp_path / "mine.yaml"
    init_folder(real_data / folder, out=out)
    cases = describe_folder(out).read_cases(out)
    assert len(cases) == count
    assert check_pairs(cases) == []

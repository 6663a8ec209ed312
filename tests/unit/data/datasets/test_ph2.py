"""The PH2 reader on folders as the archive unpacks, and on a fixture of that layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segnetr.data.case import Case
from segnetr.data.datasets.ph2 import read_ph2
from segnetr.data.datasets.registry import get_dataset
from segnetr.data.validation.audit import check_cases, check_pairs
from segnetr.errors import DataError, UsageError

HEADER = "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry ||\n"
LEGEND = (
    "\nLegends:\n  Clinical Diagnosis:\n  0 - Common Nevus; 1 - Atypical Nevus; 2 - Melanoma.\n"
)


def make_tree(root: Path, diagnoses: dict[str, str]) -> Path:
    dataset_root = root / "PH2Dataset"
    for name in diagnoses:
        folder = dataset_root / "PH2 Dataset images" / name
        image = folder / f"{name}_Dermoscopic_Image" / f"{name}.bmp"
        mask = folder / f"{name}_lesion" / f"{name}_lesion.bmp"
        roi = folder / f"{name}_roi" / f"{name}_R1_Label4.bmp"
        for path in (image, mask, roi):
            path.parent.mkdir(parents=True)
        Image.fromarray(np.full((30, 40, 3), 120, np.uint8)).save(image)
        lesion = np.zeros((30, 40), np.uint8)
        lesion[5:20, 5:20] = 255
        Image.fromarray(lesion).convert("1").save(mask)
        Image.fromarray(lesion).save(roi)
    rows = "".join(f"|| {n} || || {'  ' + d} || 0 ||\n" for n, d in diagnoses.items())
    (dataset_root / "PH2_dataset.txt").write_text(HEADER + rows + LEGEND)
    return dataset_root


def save_rgb(path: Path) -> None:
    """Store a mask as RGB, like the mask of IMD002 in the archive."""
    with Image.open(path) as mask:
        rgb = mask.convert("RGB")
    rgb.save(path)


def test_cases_are_read_with_their_diagnosis_from_any_of_three_folder_levels(tmp_path):
    dataset_root = make_tree(tmp_path, {"IMD002": "0", "IMD013": "1", "IMD105": "2"})
    for root in (tmp_path, dataset_root, dataset_root / "PH2 Dataset images"):
        cases = read_ph2(root)
        assert [case.case_id for case in cases] == ["IMD002", "IMD013", "IMD105"]
        assert [case.extra["stratum"] for case in cases] == [
            "common nevus",
            "atypical nevus",
            "melanoma",
        ]
        assert all(case.patient_id is None and case.split is None for case in cases)


def test_one_bit_and_rgb_masks_are_valid_and_color_masks_are_not_read(tmp_path):
    make_tree(tmp_path, {"IMD002": "0", "IMD003": "0"})
    cases = read_ph2(tmp_path)
    assert cases[0].mask is not None
    save_rgb(cases[0].mask)
    assert check_pairs(cases) == check_cases(cases, get_dataset("ph2")) == []
    assert all(len(case.mask_files) == 1 for case in cases)


def test_images_are_read_without_the_table(tmp_path):
    dataset_root = make_tree(tmp_path, {"IMD002": "0"})
    (dataset_root / "PH2_dataset.txt").unlink()
    assert read_ph2(tmp_path) == [
        Case(case_id="IMD002", image=case.image, mask=case.mask) for case in read_ph2(dataset_root)
    ]


def test_missing_files_are_issues_that_name_them(tmp_path):
    make_tree(tmp_path, {"IMD002": "0", "IMD003": "0"})
    cases = read_ph2(tmp_path)
    cases[0].image.unlink()
    assert cases[1].mask is not None
    cases[1].mask.unlink()
    issues = check_pairs(read_ph2(tmp_path))
    assert [issue.kind for issue in issues] == ["image-missing", "mask-missing"]
    assert "IMD002.bmp" in issues[0].message
    assert "IMD003_lesion.bmp" in issues[1].message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("|| Name || Histology ||\n|| IMD002 || ||\n", "no columns"),
        (HEADER + "|| IMD002 || || 7 || 0 ||\n", "of IMD002 is '7'"),
    ],
)
def test_invalid_table_is_a_data_error(tmp_path, text, words):
    table = make_tree(tmp_path, {"IMD002": "0"}) / "PH2_dataset.txt"
    table.write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_ph2(tmp_path)
    assert str(table) in str(caught.value)


def test_missing_folder_error_states_source_size_and_license(tmp_path):
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError, match="PH2 Dataset images") as caught:
            read_ph2(root)
        for words in (str(root), "www.fc.up.pt/addi", "GB", "no redistribution"):
            assert words in str(caught.value)


@pytest.mark.data
def test_layout_fixture_has_no_issues(real_data):
    cases = read_ph2(real_data / "ph2_layout_fixture")
    assert len(cases) == 4
    assert check_pairs(cases) == check_cases(cases, get_dataset("ph2")) == []

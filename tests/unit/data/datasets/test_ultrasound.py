"""Readers of TN-SCUI, DDTI, BUSI and DSB 2018 on unpacked folders and on real excerpts."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segnetr.config.load import load_config
from segnetr.data.datasets.busi import read_busi
from segnetr.data.datasets.dsb2018 import read_dsb2018
from segnetr.data.datasets.registry import get_dataset
from segnetr.data.readers.read_files import read_ground_truth
from segnetr.data.splits.split import make_split
from segnetr.data.validation.audit import check_cases, check_pairs
from segnetr.errors import DataError, UsageError


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def blob(row: int) -> np.ndarray:
    mask = np.zeros((32, 40))
    mask[row : row + 5, 4:20] = 255
    return mask


GRAY = np.full((32, 40), 90)


def make_tnscui(root: Path, count: int, *, folder: str = "tnscui2020_train") -> Path:
    for number in range(1, count + 1):
        save(root / folder / "image" / f"{number}.PNG", GRAY)
        save(root / folder / "mask" / f"{number}.PNG", blob(3))
    rows = "".join(f"{number}.PNG,{number % 2}\n" for number in range(1, count + 1))
    (root / folder / "train.csv").write_text("ID,CATE\n" + rows)
    return root / folder


@pytest.mark.parametrize(
    ("name", "folder"), [("tnscui", "tnscui2020_train"), ("ddti", "1_or_data")]
)
def test_images_and_masks_are_read_with_their_category(tmp_path, name, folder):
    subfolder = make_tnscui(tmp_path, 3, folder=folder)
    spec = get_dataset(name)
    for root in (tmp_path, subfolder):
        cases = spec.read_cases(root)
        assert [case.case_id for case in cases] == ["1", "2", "3"]
        assert [case.extra["stratum"] for case in cases] == ["malignant", "benign", "malignant"]
        assert check_pairs(cases) == check_cases(cases, spec) == []


def test_table_in_the_parent_folder_is_read_and_other_tables_are_ignored(tmp_path):
    folder = make_tnscui(tmp_path, 2)
    (folder / "train.csv").rename(tmp_path / "train.csv")
    (tmp_path / "sources.csv").write_text("ID,CATE,original\n1.PNG,1,x\n")
    cases = get_dataset("tnscui").read_cases(tmp_path)
    assert [case.extra["category"] for case in cases] == ["malignant", "benign"]
    (tmp_path / "sources.csv").unlink()
    (tmp_path / "train.csv").unlink()
    assert all(not case.extra for case in get_dataset("tnscui").read_cases(tmp_path))


def test_recipe_splits_60_20_20_with_both_categories_in_each_split(tmp_path):
    make_tnscui(tmp_path, 50)
    cases = get_dataset("tnscui").read_cases(tmp_path)
    settings = load_config(["dataset/tnscui"]).data
    split = make_split(
        cases,
        validation_share=settings.validation_share,
        test_share=settings.test_share,
        seed=settings.split_seed,
        strata={case.case_id: case.extra["stratum"] for case in cases},
    )
    strata = {case.case_id: case.extra["stratum"] for case in cases}
    for ids, count in ((split.train, 15), (split.validation, 5), (split.test, 5)):
        assert Counter(strata[i] for i in ids) == {"benign": count, "malignant": count}


def test_missing_partners_and_duplicate_stems_of_tnscui_are_issues(tmp_path):
    folder = make_tnscui(tmp_path, 4)
    (folder / "mask" / "1.PNG").unlink()
    (folder / "image" / "2.PNG").unlink()
    for name in ("image", "mask"):
        (folder / name / "3.PNG").unlink()
    save(folder / "image" / "4.jpg", GRAY)
    issues = check_pairs(get_dataset("tnscui").read_cases(tmp_path))
    assert [(issue.case_id, issue.kind) for issue in issues] == [
        ("1", "mask-missing"),
        ("2", "image-missing"),
        ("3", "image-missing"),
        ("4", "duplicate-id"),
        ("4", "duplicate-id"),
    ]
    assert str(folder / "mask" / "1.PNG") in issues[0].message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ID,CATE\n1.PNG,malignant\n", "CATE of 1.PNG is 'malignant'"),
        ("ID,CATE\n1.PNG,1\n1.PNG,0\n", "is listed twice"),
        ("ID,CATE\n1.PNG\n", "is ''"),
    ],
)
def test_invalid_table_of_categories_is_a_data_error(tmp_path, text, words):
    table = make_tnscui(tmp_path, 1) / "train.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        get_dataset("tnscui").read_cases(tmp_path)
    assert str(table) in str(caught.value)
    (tmp_path / "second.csv").write_text("ID,CATE\n")
    with pytest.raises(DataError, match="2 tables"):
        get_dataset("tnscui").read_cases(tmp_path)


def test_busi_merges_the_masks_of_an_image_and_includes_normal_findings(tmp_path):
    folder = tmp_path / "Dataset_BUSI_with_GT"
    for finding, masks in {"benign": [3, 20], "malignant": [8], "normal": [None]}.items():
        save(folder / finding / f"{finding} (1).png", np.stack([GRAY] * 3, axis=2))
        for number, row in enumerate(masks):
            ending = f"_mask_{number}" if number else "_mask"
            mask = GRAY * 0 if row is None else blob(row)
            save(folder / finding / f"{finding} (1){ending}.png", mask)
    spec = get_dataset("busi")
    for root in (tmp_path, folder):
        cases = read_busi(root)
        assert [case.case_id for case in cases] == ["benign (1)", "malignant (1)", "normal (1)"]
        assert [case.extra["stratum"] for case in cases] == ["benign", "malignant", "normal"]
        assert check_pairs(cases) == check_cases(cases, spec) == []
        ground_truth = read_ground_truth(cases[0].mask_files, classes=2).array
        assert np.array_equal(ground_truth, ((blob(3) + blob(20)) > 0).astype(np.uint8))


def test_busi_images_and_masks_without_a_partner_are_issues(tmp_path):
    save(tmp_path / "benign" / "benign (1).png", GRAY)
    save(tmp_path / "benign" / "benign (2)_mask.png", blob(3))
    issues = check_pairs(read_busi(tmp_path))
    assert [issue.kind for issue in issues] == ["mask-missing", "image-missing"]
    assert "benign (1)_mask.png" in issues[0].message
    assert "benign (2).png" in issues[1].message


def test_masks_of_all_nuclei_of_an_image_are_merged(tmp_path):
    for name in ("ab12", "cd34"):
        folder = tmp_path / "stage1_train" / name
        save(folder / "images" / f"{name}.png", np.dstack([GRAY] * 3 + [GRAY * 0 + 255]))
        for number, row in enumerate((2, 12, 24)):
            save(folder / "masks" / f"{name[::-1]}{number}.png", blob(row))
    cases = read_dsb2018(tmp_path)
    assert [case.case_id for case in cases] == ["ab12", "cd34"]
    assert [len(case.mask_files) for case in cases] == [3, 3]
    assert check_pairs(cases) == check_cases(cases, get_dataset("dsb2018")) == []
    ground_truth = read_ground_truth(cases[0].mask_files, classes=2).array
    assert np.array_equal(ground_truth, ((blob(2) + blob(12) + blob(24)) > 0).astype(np.uint8))


@pytest.mark.parametrize("name", ["tnscui", "ddti", "busi", "dsb2018"])
def test_missing_folder_error_states_source_size_and_license(tmp_path, name):
    spec = get_dataset(name)
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError) as caught:
            spec.read_cases(root)
        message = str(caught.value)
        assert message.startswith(str(root))
        for words in (spec.source, spec.download_size, spec.license):
            assert words in message


@pytest.mark.data
def test_real_excerpts_are_read_completely_without_issues(real_data):
    ultrasound = get_dataset("tnscui").read_cases(real_data / "ultrasound_tnscui_layout")
    assert Counter(case.extra["stratum"] for case in ultrasound) == {"benign": 33, "malignant": 28}
    assert check_pairs(ultrasound) == check_cases(ultrasound[::6], get_dataset("tnscui")) == []
    nuclei = get_dataset("dsb2018").read_cases(real_data / "dsb2018")
    assert (len(nuclei), sum(len(case.mask_files) for case in nuclei)) == (40, 508)
    assert check_pairs(nuclei) == check_cases(nuclei[::4], get_dataset("dsb2018")) == []

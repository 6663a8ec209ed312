"""The ISIC readers on trees with each trap of the real archives, and on real excerpts."""

from collections import Counter
from pathlib import Path

import pytest

from segnetr.data.case import Case
from segnetr.data.datasets.isic import ISIC_2017, ISIC_2018, IsicLayout, read_isic
from segnetr.errors import ReadError, UsageError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def make_tree(root: Path, layout: IsicLayout, *, parts: tuple[str, ...] = ("train",)) -> Path:
    """Lay out two pairs of each part, with the files that are no images beside them."""
    for index, part in enumerate(layout.parts):
        if part.name not in parts:
            continue
        for row in range(2):
            name = f"ISIC_{index}00000{row}"
            touch(root / part.images / f"{name}.jpg")
            touch(root / part.masks / f"{name}_segmentation.png")
            touch(root / part.images / f"{name}_superpixels.png")
            touch(root / part.images / f"._{name}.jpg")
        for stray in ("ATTRIBUTION.txt", "LICENSE.txt", f"{part.images}_metadata.csv", ".DS_Store"):
            touch(root / part.images / stray)
    return root


def get(cases: list[Case], case_id: str) -> Case:
    (case,) = [case for case in cases if case.case_id == case_id]
    return case


@pytest.mark.parametrize("layout", [ISIC_2017, ISIC_2018], ids=lambda layout: layout.title)
@pytest.mark.parametrize("parts", [("train",), ("validation", "test"), ("train", "test")])
def test_parts_that_are_there_are_read_and_stray_files_are_not(tmp_path, layout, parts):
    make_tree(tmp_path, layout, parts=parts)
    cases = read_isic(tmp_path, layout=layout)
    assert Counter(case.split for case in cases) == dict.fromkeys(parts, 2)
    assert [case.case_id for case in cases] == sorted(case.case_id for case in cases)
    for case in cases:
        assert case.image.name == f"{case.case_id}.jpg"
        assert case.mask is not None
        assert case.mask.name == f"{case.case_id}_segmentation.png"
        assert case.image.is_file()
        assert case.mask.is_file()


def test_folder_one_level_above_is_read_and_two_levels_above_is_not(tmp_path):
    make_tree(tmp_path / "data" / "isic2018", ISIC_2018)
    assert len(read_isic(tmp_path / "data", layout=ISIC_2018)) == 2
    with pytest.raises(UsageError):
        read_isic(tmp_path, layout=ISIC_2018)


def test_archive_folder_unpacked_within_itself_is_read(tmp_path):
    make_tree(tmp_path / "flat", ISIC_2018)
    for folder in (tmp_path / "flat").iterdir():
        target = tmp_path / "nested" / folder.name / folder.name
        target.parent.mkdir(parents=True)
        folder.rename(target)
    assert len(read_isic(tmp_path / "nested", layout=ISIC_2018)) == 2


def test_two_candidate_folders_are_named_and_refused(tmp_path):
    make_tree(tmp_path / "first", ISIC_2018)
    make_tree(tmp_path / "second", ISIC_2018)
    with pytest.raises(UsageError, match="first, second"):
        read_isic(tmp_path, layout=ISIC_2018)


def test_upper_case_suffixes_and_capital_segmentation_are_read(tmp_path):
    part = ISIC_2017.parts[0]
    touch(tmp_path / part.images / "ISIC_0000001.JPG")
    touch(tmp_path / part.masks / "ISIC_0000001_segmentation.PNG")
    touch(tmp_path / part.images / "ISIC_0000002.jpeg")
    touch(tmp_path / part.masks / "ISIC_0000002_Segmentation.png")
    cases = read_isic(tmp_path, layout=ISIC_2017)
    assert [case.mask.name for case in cases] == [
        "ISIC_0000001_segmentation.PNG",
        "ISIC_0000002_Segmentation.png",
    ]


def test_image_without_mask_names_the_mask_that_is_expected(tmp_path):
    make_tree(tmp_path, ISIC_2018)
    gone = tmp_path / ISIC_2018.parts[0].masks / "ISIC_0000001_segmentation.png"
    gone.unlink()
    case = get(read_isic(tmp_path, layout=ISIC_2018), "ISIC_0000001")
    assert case.mask is None
    assert case.extra["expected_mask"] == str(gone)


def test_mask_without_image_gives_a_case_whose_image_is_missing(tmp_path):
    make_tree(tmp_path, ISIC_2018)
    gone = tmp_path / ISIC_2018.parts[0].images / "ISIC_0000001.jpg"
    gone.unlink()
    case = get(read_isic(tmp_path, layout=ISIC_2018), "ISIC_0000001")
    assert case.image == gone
    assert case.mask is not None


def test_id_in_two_parts_gives_two_cases_for_the_audit(tmp_path):
    make_tree(tmp_path, ISIC_2018, parts=("train", "test"))
    test = ISIC_2018.parts[2]
    touch(tmp_path / test.images / "ISIC_0000000.jpg")
    touch(tmp_path / test.masks / "ISIC_0000000_segmentation.png")
    cases = [c for c in read_isic(tmp_path, layout=ISIC_2018) if c.case_id == "ISIC_0000000"]
    assert {case.split for case in cases} == {"train", "test"}


def test_missing_data_says_in_one_line_what_is_expected_and_where_to_get_it(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere", touch(tmp_path / "file.zip")):
        for layout in (ISIC_2017, ISIC_2018):
            with pytest.raises(UsageError) as caught:
                read_isic(root, layout=layout)
            message = str(caught.value)
            assert "\n" not in message
            assert message.startswith(str(root))
            assert layout.parts[0].images in message
            assert layout.parts[0].masks in message
            assert layout.source in message
            assert layout.download_size in message
            assert layout.license in message


@pytest.mark.parametrize("missing", ["images", "masks"])
def test_half_a_part_is_refused_with_the_name_of_the_other_half(tmp_path, missing):
    make_tree(tmp_path, ISIC_2018, parts=("train", "validation"))
    folder = tmp_path / getattr(ISIC_2018.parts[1], missing)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=f"^{folder}: the folder is missing"):
        read_isic(tmp_path, layout=ISIC_2018)


def test_folders_without_files_are_refused(tmp_path):
    for name in ISIC_2018.folders:
        (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=r"no \*\.jpg image"):
        read_isic(tmp_path, layout=ISIC_2018)


def test_diagnoses_of_2017_are_read(tmp_path):
    make_tree(tmp_path, ISIC_2017)
    table = tmp_path / "ISIC-2017_Training_Part3_GroundTruth.csv"
    table.write_text(
        "\ufeffimage_id,melanoma,seborrheic_keratosis\nISIC_0000000,1.0,0.0\nISIC_0000001,0.0,0.0\n",
        encoding="utf-8",
    )
    cases = read_isic(tmp_path, layout=ISIC_2017)
    assert [case.extra["diagnosis"] for case in cases] == ["melanoma", "nevus"]
    for broken in ("a,b\n1,2\n", "image_id,melanoma,seborrheic_keratosis\nISIC_0000000,?\n"):
        table.write_text(broken, encoding="utf-8")
        with pytest.raises(ReadError, match=r"Part3_GroundTruth\.csv: no table"):
            read_isic(tmp_path, layout=ISIC_2017)


@pytest.mark.data
def test_real_excerpts_are_read_whole(real_data):
    layouts = {
        "isic2017": (ISIC_2017, 14, "validation"),
        "isic2018_layout": (ISIC_2018, 30, "train"),
    }
    for folder, (layout, count, part) in layouts.items():
        cases = read_isic(real_data / folder, layout=layout)
        assert len(cases) == count
        assert {case.split for case in cases} == {part}
        assert all(case.mask is not None and case.mask.is_file() for case in cases)
        assert all(case.image.is_file() for case in cases)

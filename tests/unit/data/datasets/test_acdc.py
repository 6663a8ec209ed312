"""The ACDC reader on unpacked folders with two frames per patient, named in Info.cfg."""

from pathlib import Path

import pytest
from support.volume_files import write_acdc

from segnetr.data.datasets.acdc import read_acdc
from segnetr.data.splits.split import make_split
from segnetr.data.validation.audit import check_pairs
from segnetr.errors import DataError, UsageError


def test_each_patient_has_two_frames_with_metadata(tmp_path: Path) -> None:
    write_acdc(tmp_path, 2)
    write_acdc(tmp_path, 1, part="testing", first=101)
    cases = read_acdc(tmp_path)
    assert [case.case_id for case in cases] == [
        f"patient{number:03d}_frame{frame:02d}" for number in (1, 2, 101) for frame in (1, 9)
    ]
    second = cases[1]
    extra = {"phase": "ES", "group": "DCM", "stratum": "DCM", "height": "184.0", "weight": "95.0"}
    assert second.extra == extra
    assert (second.patient_id, second.split) == ("patient001", "train")
    assert cases[-1].split == "test"
    assert check_pairs(cases) == []


@pytest.mark.parametrize("below", [".", "ACDC", "ACDC/database"])
def test_any_level_of_the_unpacked_folder_is_accepted(tmp_path: Path, below: str) -> None:
    assert len(read_acdc(write_acdc(tmp_path) / below)) == 6


def test_missing_frame_is_an_issue_that_names_the_file(tmp_path: Path) -> None:
    write_acdc(tmp_path, 1)
    (gone,) = tmp_path.rglob("patient001_frame09_gt.nii.gz")
    gone.unlink()
    (issue,) = check_pairs(read_acdc(tmp_path))
    assert issue.kind == "mask-missing"
    assert str(gone) in issue.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        (b"ED: 1\nGroup: NOR\n", "'ES:'"),
        (b"ED: one\nES: 9\n", "'one'"),
        (b"ED: 1\nES: ../../9\n", "'../../9'"),
        (b"\xff\xfe\x00", "not text"),
    ],
)
def test_invalid_patient_file_is_named(tmp_path: Path, text: bytes | None, words: str) -> None:
    write_acdc(tmp_path, 1)
    (info,) = tmp_path.rglob("Info.cfg")
    info.unlink()
    if text is not None:
        info.write_bytes(text)
    with pytest.raises(DataError, match=words) as caught:
        read_acdc(tmp_path)
    assert str(caught.value).startswith(str(info))


@pytest.mark.parametrize("made", ["", "ACDC/database/training", "training/patient1x"])
def test_error_for_a_folder_without_the_layout_names_the_expected_files(
    tmp_path: Path, made: str
) -> None:
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    with pytest.raises(UsageError, match=r"expected .*patient001/Info\.cfg"):
        read_acdc(tmp_path)


def test_seeded_split_groups_patients_and_stratifies_pathologies(tmp_path: Path) -> None:
    cases = read_acdc(write_acdc(tmp_path, 20, shape=(4, 4, 3)))
    strata = {case.case_id: case.extra["stratum"] for case in cases}
    split = make_split(cases, validation_share=0.0, test_share=0.25, seed=3, strata=strata)
    by_id = {case.case_id: case for case in cases}
    assert {by_id[i].patient_id for i in split.test}.isdisjoint(
        by_id[i].patient_id for i in split.train
    )
    groups = sorted(by_id[i].extra["group"] for i in split.test)
    assert groups == sorted(2 * ["DCM", "HCM", "MINF", "NOR", "RV"])


def test_real_excerpt_has_twenty_patients_in_five_groups(real_data: Path) -> None:
    cases = read_acdc(real_data / "acdc")
    assert len(cases) == 40
    assert len({case.patient_id for case in cases}) == 20
    assert {case.extra["group"] for case in cases} == {"DCM", "HCM", "MINF", "NOR", "RV"}
    assert check_pairs(cases) == []

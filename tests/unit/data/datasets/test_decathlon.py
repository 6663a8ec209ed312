"""The Decathlon reader follows a task's dataset.json and checks every field of it."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from support.volume_files import write_task

from segnetr.config.schema.segmentation import DataConfig
from segnetr.data.datasets.decathlon import read_decathlon
from segnetr.data.datasets.registry import get_dataset
from segnetr.data.validation.audit import check_cases, check_pairs
from segnetr.errors import DataError, UsageError
from segnetr.workflows.datasets.loading import open_dataset


def describe(root: Path):
    return open_dataset(DataConfig(dataset="decathlon", data_dir=root))


def change(folder: Path, **changes: Any) -> Path:
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


def test_classes_channels_and_license_come_from_the_folder(tmp_path: Path) -> None:
    opened = describe(write_task(tmp_path, 3, channels=2))
    assert opened.spec.classes == ("background", "far", "near")
    assert (opened.spec.in_channels, opened.spec.spatial_dims) == (2, 3)
    assert opened.spec.title == "Medical Segmentation Decathlon: Box"
    assert opened.spec.license == "CC0"
    assert [case.case_id for case in opened.cases] == ["box_000", "box_001", "box_002"]
    pickle.dumps(opened.spec)  # it is sent to worker processes
    assert check_pairs(opened.cases) == []
    assert check_cases(opened.cases, opened.spec) == []


def test_parent_of_one_task_is_accepted_and_parent_of_two_is_not(tmp_path: Path) -> None:
    folder = write_task(tmp_path, 1)
    assert describe(tmp_path).cases == describe(folder).cases
    (tmp_path / "Task98_Other").mkdir()
    (tmp_path / "Task98_Other" / "dataset.json").write_text("{}")
    with pytest.raises(UsageError, match="Task98_Other, Task99_Box"):
        read_decathlon(tmp_path)


def test_macos_metadata_files_are_not_cases(tmp_path: Path) -> None:
    folder = write_task(tmp_path, 2)
    pairs = json.loads((folder / "dataset.json").read_text())["training"]
    extra = {"image": "./imagesTr/._box_000.nii.gz", "label": "./labelsTr/._box_000.nii.gz"}
    change(folder, training=[*pairs, extra])
    assert len(read_decathlon(folder)) == 2


def test_listed_but_missing_file_is_an_issue(tmp_path: Path) -> None:
    folder = write_task(tmp_path, 2)
    (folder / "imagesTr" / "box_001.nii.gz").unlink()
    (issue,) = check_pairs(read_decathlon(folder))
    assert (issue.case_id, issue.kind) == ("box_001", "image-missing")


PAIR = {"image": "./imagesTr/box_000.nii.gz", "label": "./labelsTr/box_000.nii.gz"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": {"0": "background", "2": "far"}}, "'labels' are 0, 2, not 0 to 1"),
        ({"labels": {"0": "background"}}, "no class except the background"),
        ({"labels": {"0": "background", "1": "a", "2": "a"}}, "different classes"),
        ({"labels": {"0": "background", "1": "mean"}}, "different classes"),
        ({"labels": {"0": "background", "1": 7}}, "without a name"),
        ({"labels": ["background"]}, "'labels' is not a table"),
        ({"modality": {}}, "'modality' is not a table"),
        ({"training": []}, "lists no case"),
        ({"training": ["a.nii.gz"]}, "an image and a label"),
        ({"training": [{"image": "a.png", "label": "a.nii.gz"}]}, "NIfTI"),
        ({"training": [{**PAIR, "image": "../a.nii.gz"}]}, "outside its folder"),
        ({"training": [{**PAIR, "image": "/etc/a.nii.gz"}]}, "outside its folder"),
        ({"training": [{**PAIR, "label": "a\\..\\b.nii.gz"}]}, "outside its folder"),
        ({"numTraining": 260}, "'numTraining' is 260, but 'training' lists 2"),
    ],
)
def test_invalid_description_is_a_one_line_error(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = change(write_task(tmp_path, 2), **changes)
    with pytest.raises(DataError, match=words) as caught:
        describe(tmp_path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"a":' * 100_000])
def test_file_that_is_not_a_json_object_is_a_one_line_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dataset.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not JSON|not a description") as caught:
        read_decathlon(tmp_path)
    assert "\n" not in str(caught.value)


def test_error_for_a_folder_without_a_task_names_an_example(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Task04_Hippocampus"):
        read_decathlon(tmp_path)
    assert get_dataset("decathlon").describe is not None


def test_real_excerpt_is_the_hippocampus_task(real_data: Path) -> None:
    opened = describe(real_data / "msd_hippocampus")
    assert opened.spec.title.endswith("Hippocampus")
    assert opened.spec.classes == ("background", "Anterior", "Posterior")
    assert len(opened.cases) == 60
    assert check_pairs(opened.cases) == []

"""The audit reports every issue of a dataset, and survives crashes of its workers."""

import importlib
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segnetr.data.case import Case, DatasetSpec
from segnetr.data.validation.audit import Issue, check_case, check_cases, check_pairs, run_checks

MASK = np.zeros((40, 50), dtype=np.uint8)
MASK[10:20, 10:30] = 255
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)

SPEC = DatasetSpec(
    name="made",
    title="Made",
    read_cases=lambda _root: [],
    classes=("background", "lesion"),
    in_channels=3,
    spatial_dims=2,
    counts={},
    source="here",
    license="none",
)


def make_case(folder: Path, name: str, *, mask: np.ndarray = MASK) -> Case:
    Image.fromarray(IMAGE).save(folder / f"{name}.png")
    Image.fromarray(mask).save(folder / f"{name}_mask.png")
    return Case(case_id=name, image=folder / f"{name}.png", mask=folder / f"{name}_mask.png")


def kinds(issues: Sequence[Issue]) -> list[tuple[str, str]]:
    return [(issue.case_id, issue.kind) for issue in issues]


def make_set(folder: Path) -> list[Case]:
    cases = [make_case(folder, f"c{row}") for row in range(6)]
    cases[1].image.write_bytes(cases[1].image.read_bytes()[:200])
    assert cases[2].mask is not None
    cases[2].mask.write_bytes(b"")
    cases.append(make_case(folder, "small", mask=MASK[:30]))
    cases.append(make_case(folder, "gray", mask=MASK // 2))
    cases.append(make_case(folder, "empty", mask=MASK * 0))
    return cases


EXPECTED = [
    ("c1", "image-unreadable"),
    ("c2", "mask-unreadable"),
    ("small", "size-mismatch"),
    ("gray", "mask-values"),
]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_all_issues_of_a_dataset_are_found_in_order(workers: int, tmp_path: Path) -> None:
    cases, calls = make_set(tmp_path), []
    issues = check_cases(
        cases, SPEC, workers=workers, progress=lambda done, total: calls.append((done, total))
    )
    assert kinds(issues) == EXPECTED
    assert calls == [(done + 1, len(cases)) for done in range(len(cases))]
    for issue in issues:
        assert "\n" not in issue.message
        assert issue.message.startswith(f"{issue.path}: ")
    assert "30 x 50, but its image small.png is 40 x 50" in issues[2].message


def test_valid_case_and_case_without_mask_have_no_issue(tmp_path: Path) -> None:
    case = make_case(tmp_path, "a")
    assert check_case(case, spec=SPEC) == []
    assert check_case(Case(case_id="a", image=case.image), spec=SPEC) == []
    assert kinds(check_case(case, spec=SPEC, max_pixels=100)) == [
        ("a", "image-unreadable"),
        ("a", "mask-unreadable"),
    ]


def test_incomplete_pairs_are_reported(tmp_path: Path) -> None:
    whole = make_case(tmp_path, "whole")
    image, mask = tmp_path / "whole.png", tmp_path / "whole_mask.png"
    cases = [
        whole,
        Case(case_id="bare", image=image),
        Case(case_id="lost", image=image, mask=tmp_path / "lost_mask.png"),
        Case(case_id="orphan", image=tmp_path / "orphan.png", mask=mask),
        Case(case_id="twin", image=image, mask=mask),
        Case(case_id="twin", image=image, mask=mask),
    ]
    issues = check_pairs(cases)
    assert kinds(issues) == [
        ("bare", "mask-missing"),
        ("lost", "mask-missing"),
        ("orphan", "image-missing"),
        ("twin", "duplicate-id"),
        ("twin", "duplicate-id"),
    ]
    assert "the image of the mask whole_mask.png" in issues[2].message


def test_volume_mask_on_another_grid_is_an_issue(tmp_path: Path) -> None:
    voxels = np.zeros((8, 8, 6), dtype=np.uint8)
    moved = np.eye(4)
    moved[0, 3] = 3.0
    for name, affine in {"image": np.eye(4), "mask": moved, "same": np.eye(4) + 1e-7}.items():
        nib.save(nib.Nifti1Image(voxels, affine), tmp_path / f"{name}.nii.gz")
    image = tmp_path / "image.nii.gz"
    invalid = Case(case_id="v", image=image, mask=tmp_path / "mask.nii.gz")
    (issue,) = check_case(invalid, spec=SPEC)
    assert issue.kind == "grid-mismatch"
    assert "3 voxels away" in issue.message
    assert not check_case(Case(case_id="v", image=image, mask=tmp_path / "same.nii.gz"), spec=SPEC)


# A worker imports its check by name, so it stands in a module of its own.
KILLER = """
import os, signal
from pathlib import Path
from segnetr.data.validation.case_check import FileIssue

def check(image, masks):
    marker = Path(masks[0])
    if image.name == "killer.png" or (image.name == "once.png" and not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [FileIssue("mask-values", image, f"{image}: checked")]
"""


@pytest.mark.slow
def test_killed_worker_is_an_issue_and_the_audit_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "killer_check.py").write_text(KILLER)
    monkeypatch.syspath_prepend(str(tmp_path))
    check = importlib.import_module("killer_check").check
    names = ["a", "b", "killer", "c", "once", "d", "e"]
    cases = [
        Case(case_id=name, image=Path(f"{name}.png"), mask=tmp_path / f"{name}.mark")
        for name in names
    ]
    issues = run_checks(cases, check, workers=2)
    assert [issue.case_id for issue in issues] == names
    (dead,) = [issue for issue in issues if issue.kind == "image-unreadable"]
    assert dead.case_id == "killer"
    assert "killer.png: the process that read it was killed" in dead.message

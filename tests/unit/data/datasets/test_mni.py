"""The MNI152 dataset from nilearn: found without an import, cut into separate slabs."""

import importlib.util
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support.volume_files import write_nifti

from segnetr.data.datasets.mni import (
    SLABS,
    WHOLE_NAME,
    find_nilearn_data,
    label_tissues,
    prepare_mni,
    read_mni,
)
from segnetr.data.datasets.registry import get_dataset
from segnetr.data.readers.read_files import read_image, read_mask
from segnetr.data.validation.audit import check_cases, check_pairs
from segnetr.errors import ReadError, UsageError

AFFINE = np.array([[1.0, 0, 0, -98], [0, 1, 0, -134], [0, 0, 1, -72], [0, 0, 0, 1]])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a package named nilearn on the import path that raises when it is imported."""
    folder = tmp_path / "site" / "nilearn"
    data = folder / "datasets" / "data"
    random = np.random.default_rng(0)
    gray = random.integers(0, 256, (5, 7, 189)).astype(np.uint8)
    for name, array in {"t1": gray // 2, "gm": gray, "wm": 255 - gray}.items():
        path = data / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        write_nifti(path, array, AFFINE)
    (folder / "__init__.py").write_text("raise RuntimeError('nilearn was imported')\n")
    for name in [name for name in sys.modules if name.split(".")[0] == "nilearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(folder.parent)
    return data


def test_slabs_keep_their_world_coordinates(package: Path, tmp_path: Path) -> None:
    assert find_nilearn_data() == package
    root = tmp_path / "out"
    prepare_mni(root)
    cases = read_mni(root)
    assert check_pairs(cases) == []
    assert check_cases(cases, get_dataset("mni")) == []
    whole = read_image(root / "mni" / WHOLE_NAME)
    np.testing.assert_array_equal(whole.affine, AFFINE)
    for slab in SLABS:
        (case,) = [case for case in cases if case.case_id == slab.name]
        cut = read_image(case.image)
        np.testing.assert_array_equal(cut.array, whole.array[:, :, slab.first : slab.stop])
        assert cut.affine is not None
        assert cut.affine[2, 3] == AFFINE[2, 3] + slab.first
        assert case.split == slab.split


def test_slabs_of_different_splits_have_a_gap_between_them() -> None:
    slabs = sorted((slab.first, slab.stop, slab.split) for slab in SLABS)
    for (_, stop, split), (first, _, other) in pairwise(slabs):
        assert split != other
        assert first - stop >= 8
    assert {split for *_, split in slabs} == {"train", "validation", "test"}


def test_existing_files_are_not_generated_again(package: Path, tmp_path: Path) -> None:
    prepare_mni(tmp_path)
    for path in package.iterdir():
        path.unlink()
    prepare_mni(tmp_path)
    (tmp_path / "mni" / WHOLE_NAME).unlink()
    with pytest.raises(ReadError, match="comes without it"):
        prepare_mni(tmp_path)


def test_generated_files_are_reproducible(package: Path, tmp_path: Path) -> None:
    assert package
    for name in ("one", "two"):
        prepare_mni(tmp_path / name)
    for path in (tmp_path / "one").rglob("*.nii.gz"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()


def test_missing_package_error_names_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"segnetr\[samples\]"):
        prepare_mni(tmp_path)


def test_voxels_get_the_more_probable_tissue_if_it_reaches_one_half() -> None:
    gray = np.array([[[127, 128, 200, 130, 128]]], dtype=np.uint8)
    white = np.array([[[127, 0, 150, 131, 128]]], dtype=np.uint8)
    assert label_tissues(gray, white).tolist() == [[[0, 1, 1, 2, 2]]]


@pytest.mark.skipif(importlib.util.find_spec("nilearn") is None, reason="nilearn is not installed")
def test_each_real_slab_contains_both_tissues(tmp_path: Path) -> None:
    prepare_mni(tmp_path)
    for case in read_mni(tmp_path):
        assert case.mask is not None
        counts = np.bincount(read_mask(case.mask, classes=3).reshape(-1), minlength=3)
        assert counts[1:].min() > 5000

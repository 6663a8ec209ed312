"""Contract of all registered datasets. A new dataset is tested without a new test."""

import pickle
import subprocess
import sys

import pytest

from segnetr.data.case import SPLIT_NAMES
from segnetr.data.datasets.registry import DATASETS, OLD_NAMES, find_dataset_name, get_dataset
from segnetr.errors import UsageError


@pytest.mark.parametrize("name", DATASETS)
def test_description_is_complete(name):
    spec = get_dataset(name)
    assert spec.name == name
    assert spec.classes[0] == "background"
    assert set(spec.counts) <= set(SPLIT_NAMES)
    assert len(set(spec.classes)) == len(spec.classes) >= 2
    assert spec.in_channels >= 1
    assert spec.spatial_dims in (2, 3)
    assert spec.counts or spec.describe is not None  # or the folder determines the counts
    assert all(count > 0 for count in spec.counts.values())
    assert spec.title
    assert spec.source
    assert spec.license
    assert bool(spec.download_size) == (spec.prepare is None and spec.name != "folder")
    pickle.dumps(spec)  # it is sent to worker processes


def test_isic_counts_are_the_official_ones():
    assert tuple(get_dataset("isic2018").counts.values()) == (2594, 100, 1000)
    assert tuple(get_dataset("isic2017").counts.values()) == (2000, 150, 600)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("isic-2018", "did you mean 'isic2018'"),
        ("SYNTHETIC", "'synthetic'"),
        ("zzz", "isic2017, isic2018"),
    ],
)
def test_error_for_an_unknown_name_suggests_the_nearest(typed, words):
    with pytest.raises(UsageError, match=words) as caught:
        get_dataset(typed)
    assert f"'{typed}'" in str(caught.value)


@pytest.mark.parametrize("name", DATASETS)
def test_missing_folder_is_a_one_line_usage_error_that_names_it(name, tmp_path):
    spec = get_dataset(name)
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match=str(root)) as caught:
            spec.read_cases(root)
        assert "\n" not in str(caught.value)


def test_old_names_are_accepted():
    assert get_dataset("drawn") is get_dataset("synthetic")
    for old, new in OLD_NAMES.items():
        assert old not in DATASETS
        assert find_dataset_name(old) == new
        assert get_dataset(old).name == new


def test_listing_names_imports_no_reader_and_no_numpy():
    code = (
        "import sys; from segnetr.data.datasets.registry import DATASETS; list(DATASETS);"
        "sys.exit('numpy' in sys.modules or 'segnetr.data.case' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

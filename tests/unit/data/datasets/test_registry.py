"""The table of data sets."""

import pickle

import pytest

from segnetr.data.case import SPLIT_NAMES
from segnetr.data.datasets.registry import DATASETS, get_dataset
from segnetr.errors import UsageError


@pytest.mark.parametrize("name", DATASETS)
def test_each_data_set_says_what_a_person_needs(name):
    spec = get_dataset(name)
    assert spec.name == name
    assert spec.classes[0] == "background"
    assert set(spec.counts) <= set(SPLIT_NAMES)
    assert spec.counts or spec.describe is not None  # a folder says what it holds
    assert all(count > 0 for count in spec.counts.values())
    assert spec.title
    assert spec.source
    assert spec.license
    assert bool(spec.download_size) == (spec.prepare is None and spec.name != "folder")
    pickle.dumps(spec)  # worker processes get it


def test_official_counts_are_those_of_the_challenges():
    assert tuple(get_dataset("isic2018").counts.values()) == (2594, 100, 1000)
    assert tuple(get_dataset("isic2017").counts.values()) == (2000, 150, 600)


@pytest.mark.parametrize(
    ("typed", "said"),
    [("isic-2018", "did you mean 'isic2018'"), ("SYNTHETIC", "'synthetic'"), ("zzz", "isic2017, isic2018")],
)
def test_unknown_name_gives_the_nearest(typed, said):
    with pytest.raises(UsageError, match=said) as caught:
        get_dataset(typed)
    assert f"'{typed}'" in str(caught.value)


def test_missing_data_set_of_ours_is_wrong_usage(tmp_path):
    for spec in DATASETS.values():
        with pytest.raises(UsageError, match=str(tmp_path)):
            spec.read_cases(tmp_path)

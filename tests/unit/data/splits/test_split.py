"""Splits partition patients, do not depend on the input order, and use official splits."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segnetr.data.case import SPLIT_NAMES, Case, Split
from segnetr.data.splits.split import make_split, read_split, write_split
from segnetr.errors import DataError, UsageError, WriteError

SHARES = {"validation_share": 0.15, "test_share": 0.15}


def make_cases(count: int, **facts: object) -> list[Case]:
    return [Case(case_id=f"c{i:04d}", image=Path(f"c{i:04d}.jpg"), **facts) for i in range(count)]


def part_of(split: Split) -> dict[str, str]:
    return {case_id: name for name in SPLIT_NAMES for case_id in split.ids(name)}


patients = st.lists(st.none() | st.integers(0, 12).map(str), min_size=1, max_size=60)
shares = st.sampled_from([0.0, 0.1, 0.15, 0.3, 0.45])


def cases_of(patient_ids: list[str | None]) -> list[Case]:
    return [
        Case(case_id=f"c{i:03d}", image=Path("x.jpg"), patient_id=patient)
        for i, patient in enumerate(patient_ids)
    ]


@settings(max_examples=120, deadline=None)
@given(patients, shares, shares, st.integers(0, 5), st.randoms(use_true_random=False))
def test_split_partitions_patients_in_any_input_order(
    patient_ids, validation_share, test_share, seed, random
):
    cases = cases_of(patient_ids)
    strata = {case.case_id: "ab"[i % 2] for i, case in enumerate(cases)}
    request = {
        "validation_share": validation_share,
        "test_share": test_share,
        "seed": seed,
        "strata": strata,
    }
    split = make_split(cases, **request)
    ids = [i for name in SPLIT_NAMES for i in split.ids(name)]
    assert sorted(ids) == [case.case_id for case in cases]
    assert split.train, "nothing is left to train on"

    parts = part_of(split)
    parts_of_patient: dict[str, set[str]] = {}
    for case in cases:
        if case.patient_id is not None:
            parts_of_patient.setdefault(case.patient_id, set()).add(parts[case.case_id])
    assert all(len(names) == 1 for names in parts_of_patient.values())

    groups = len({case.patient_id or case.case_id for case in cases})
    assert bool(split.validation) == (validation_share > 0 and groups >= 2)
    assert bool(split.test) == (test_share > 0 and groups >= (3 if validation_share else 2))

    shuffled = list(cases)
    random.shuffle(shuffled)
    assert make_split(shuffled, **request) == split


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 120), st.integers(0, 50))
def test_added_case_moves_at_most_three_others(count, seed):
    cases = make_cases(count + 1)
    before = part_of(make_split(cases[:-1], seed=seed, **SHARES))
    after = part_of(make_split(cases, seed=seed, **SHARES))
    moved = [case_id for case_id, part in before.items() if after[case_id] != part]
    assert len(moved) <= 3


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (10, (6, 2, 2)), (200, (140, 30, 30))],
)
def test_shares_are_met_and_small_datasets_have_validation_cases(count, expected):
    split = make_split(make_cases(count), seed=0, **SHARES)
    assert tuple(len(split.ids(name)) for name in SPLIT_NAMES) == expected
    assert split.origin == "seeded"
    assert split.seed == 0


def test_each_split_gets_its_share_of_each_stratum():
    cases = make_cases(100)
    strata = {case.case_id: "rare" if i < 20 else "common" for i, case in enumerate(cases)}
    split = make_split(cases, validation_share=0.2, test_share=0.1, seed=3, strata=strata)
    counts = {name: Counter(strata[i] for i in split.ids(name)) for name in SPLIT_NAMES}
    assert counts["test"] == {"rare": 2, "common": 8}
    assert counts["validation"] == {"rare": 4, "common": 16}


def test_patients_with_two_cases_in_five_strata_meet_the_share():
    cases = cases_of([f"p{row // 2:02d}" for row in range(40)])
    strata = {case.case_id: str(row // 8) for row, case in enumerate(cases)}
    for seed in range(10):
        split = make_split(cases, validation_share=0.0, test_share=0.3, seed=seed, strata=strata)
        assert len(split.test) == 12
        assert {strata[i] for i in split.test} == set("01234")


def test_large_patient_does_not_exceed_a_small_share():
    cases = cases_of(["big"] * 20 + ["a", "b", "c"])
    for seed in range(20):
        split = make_split(cases, validation_share=0.1, test_share=0.0, seed=seed)
        assert len(split.validation) <= 2


def test_test_split_depends_on_the_seed_and_not_on_the_validation_share():
    cases = make_cases(60)
    one = make_split(cases, seed=1, **SHARES)
    assert one != make_split(cases, seed=2, **SHARES)
    assert one.test == make_split(cases, validation_share=0.3, test_share=0.15, seed=1).test


def with_parts(train: int, validation: int, test: int) -> list[Case]:
    names = ["train"] * train + ["validation"] * validation + ["test"] * test
    return [
        Case(case_id=f"c{i:03d}", image=Path("x.jpg"), split=name) for i, name in enumerate(names)
    ]


def test_complete_official_split_is_used():
    split = make_split(with_parts(5, 2, 3), seed=7, **SHARES)
    assert (split.origin, split.seed) == ("official", None)
    assert split.validation == ("c005", "c006")
    assert split.test == ("c007", "c008", "c009")


def test_official_test_split_is_used_if_validation_is_missing():
    split = make_split(with_parts(20, 0, 5), seed=0, **SHARES)
    assert split.test == tuple(f"c{i:03d}" for i in range(20, 25))
    assert len(split.validation) == 3
    assert split.origin == "seeded"


def test_official_validation_split_is_used_if_test_is_missing():
    split = make_split(with_parts(20, 4, 0), seed=0, **SHARES)
    assert split.validation == ("c020", "c021", "c022", "c023")
    assert len(split.test) == 3


def test_validation_split_without_others_is_split():
    split = make_split(with_parts(0, 14, 0), seed=0, **SHARES)
    assert [len(split.ids(name)) for name in SPLIT_NAMES] == [10, 2, 2]


@pytest.mark.parametrize("asked", [(0.6, 0.5), (1.0, 0.0), (-0.1, 0.1), (0.1, float("nan"))])
def test_shares_without_training_cases_are_refused(asked):
    with pytest.raises(UsageError, match="share"):
        make_split(make_cases(9), validation_share=asked[0], test_share=asked[1], seed=0)


def test_no_cases_and_repeated_ids_are_refused():
    with pytest.raises(UsageError, match="no cases"):
        make_split([], seed=0, **SHARES)
    with pytest.raises(DataError, match="2 cases have the id c0001"):
        make_split([*make_cases(3), make_cases(2)[1]], seed=0, **SHARES)


def test_written_split_is_read_back_without_temporary_files(tmp_path):
    path = tmp_path / "run" / "splits.json"
    for cases in (make_cases(20), with_parts(3, 2, 1)):
        split = make_split(cases, seed=4, **SHARES)
        write_split(split, path)
        assert read_split(path) == split
    assert [p.name for p in path.parent.iterdir()] == ["splits.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("c0003", "c9999"),
        lambda text: text[:-20],
        lambda _: "[]",
        lambda text: text.replace("segnetr-split-1", "other"),
        lambda text: text.replace('"seeded"', '"guessed"'),
        lambda text: json.dumps({**json.loads(text), "train": [1, 2]}),
        lambda text: json.dumps({**json.loads(text), "sha256": None}),
        lambda _: "\x00",
    ],
)
def test_modified_split_is_refused(tmp_path, change):
    path = tmp_path / "splits.json"
    write_split(make_split(make_cases(20), seed=0, **SHARES), path)
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=r"splits\.json: .*") as caught:
        read_split(path)
    assert "\n" not in str(caught.value)


def test_missing_split_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"splits\.json"):
        read_split(tmp_path / "splits.json")


def test_failed_write_preserves_the_old_split(tmp_path, monkeypatch):
    path = tmp_path / "splits.json"
    first = make_split(make_cases(20), seed=0, **SHARES)
    write_split(first, path)

    def fill_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fill_disk)
    with pytest.raises(WriteError, match="No space left"):
        write_split(make_split(make_cases(20), seed=1, **SHARES), path)
    monkeypatch.undo()
    assert read_split(path) == first
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("key", ["sha256", "seed", "origin", "train"])
def test_split_file_without_a_key_is_refused(tmp_path: Path, key: str) -> None:
    record = {
        "format": "segnetr-split-1",
        "origin": "seeded",
        "seed": 0,
        "train": ["a"],
        "validation": [],
        "test": [],
        "sha256": "0" * 64,
    }
    del record[key]
    path = tmp_path / "splits.json"
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="not a split"):
        read_split(path)

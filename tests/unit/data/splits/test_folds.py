"""Folds partition patients, are stratified, and do not depend on the input order."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segnetr.config.schema.segmentation import DataConfig
from segnetr.data.case import Case
from segnetr.data.splits.folds import assign_folds, make_fold_split
from segnetr.data.splits.split import make_split
from segnetr.data.splits.split_cases import divide, find_strata
from segnetr.errors import UsageError

patients = st.lists(st.none() | st.integers(0, 14).map(str), min_size=2, max_size=60)


def cases_of(patient_ids: list[str | None]) -> list[Case]:
    return [
        Case(case_id=f"c{i:03d}", image=Path("x.jpg"), patient_id=patient)
        for i, patient in enumerate(patient_ids)
    ]


def count_groups(cases: list[Case]) -> int:
    return len({(case.patient_id is None, case.patient_id or case.case_id) for case in cases})


@settings(max_examples=100, deadline=None)
@given(patients, st.integers(2, 6), st.integers(0, 5), st.randoms(use_true_random=False))
def test_folds_partition_patients_in_any_input_order(patient_ids, folds, seed, random):
    cases = cases_of(patient_ids)
    strata = {case.case_id: "abc"[i % 3] for i, case in enumerate(cases)}
    if count_groups(cases) < folds:
        with pytest.raises(UsageError, match="patients"):
            assign_folds(cases, folds=folds, seed=seed)
        return
    assigned = assign_folds(cases, folds=folds, seed=seed, strata=strata)
    assert sorted(assigned) == [case.case_id for case in cases]
    assert set(assigned.values()) == set(range(1, folds + 1)), "a fold is empty"
    for patient in {case.patient_id for case in cases} - {None}:
        own = {assigned[case.case_id] for case in cases if case.patient_id == patient}
        assert len(own) == 1
    shuffled = list(cases)
    random.shuffle(shuffled)
    assert assign_folds(shuffled, folds=folds, seed=seed, strata=strata) == assigned


@settings(max_examples=50, deadline=None)
@given(st.integers(5, 80), st.integers(2, 5), st.integers(0, 9), st.integers(1, 4))
def test_cases_without_a_patient_are_distributed_evenly_in_each_stratum(count, folds, seed, words):
    cases = cases_of([None] * count)
    strata = {case.case_id: str(i % words) for i, case in enumerate(cases)}
    assigned = assign_folds(cases, folds=folds, seed=seed, strata=strata)
    sizes = Counter(assigned.values())
    assert max(sizes.values()) - min(sizes.values()) <= 1
    for word in set(strata.values()):
        inside = Counter(assigned[i] for i in assigned if strata[i] == word)
        counts = [inside[fold] for fold in range(1, folds + 1)]
        assert max(counts) - min(counts) <= 1


def test_folds_depend_on_the_seed_and_not_on_paths():
    cases = cases_of([None] * 40)
    moved = [Case(case_id=case.case_id, image=Path("y") / case.image) for case in cases]
    assert assign_folds(cases, folds=5, seed=1) == assign_folds(moved, folds=5, seed=1)
    assert assign_folds(cases, folds=5, seed=1) != assign_folds(cases, folds=5, seed=2)


def test_each_case_is_validated_once_and_test_cases_are_in_no_fold():
    cases = cases_of([str(i // 2) for i in range(60)])
    test = make_split(cases, validation_share=0.15, test_share=0.2, seed=0).test
    splits = [make_fold_split(cases, fold=fold, folds=4, seed=0, test=test) for fold in range(1, 5)]
    validated = [case_id for split in splits for case_id in split.validation]
    assert sorted([*validated, *test]) == [case.case_id for case in cases]
    for split in splits:
        assert split.test == test
        assert sorted([*split.train, *split.validation]) == sorted(validated)
    assert len({split.sha256 for split in splits}) == 4


def test_settings_select_the_fold_and_keep_official_test_cases():
    parts = ["train"] * 12 + ["validation"] * 3 + ["test"] * 5
    cases = [
        Case(case_id=f"c{i:02d}", image=Path("x.jpg"), split=part) for i, part in enumerate(parts)
    ]
    split = divide(cases, DataConfig(fold=2, folds=3))
    assert split.test == tuple(f"c{i:02d}" for i in range(15, 20))
    assert len(split.validation) == 5
    assert len(split.train) == 10
    assert divide(cases, DataConfig()).origin == "official"


@pytest.mark.parametrize(("fold", "folds"), [(0, 5), (6, 5), (1, 1)])
def test_folds_that_do_not_exist_are_refused(fold, folds):
    with pytest.raises(UsageError, match="--fold"):
        make_fold_split(cases_of([None] * 9), fold=fold, folds=folds, seed=0, test=())


def test_stratum_is_the_readers_then_the_label_then_the_diagnosis():
    image = Path("x.jpg")
    cases = [
        Case(case_id="a", image=image, label=1, extra={"stratum": "HCM", "diagnosis": "n"}),
        Case(case_id="b", image=image, label=1, extra={"diagnosis": "nevus"}),
        Case(case_id="c", image=image, extra={"diagnosis": "nevus"}),
        Case(case_id="d", image=image),
    ]
    assert find_strata(cases) == {"a": "HCM", "b": "1", "c": "nevus", "d": ""}


def test_seeded_split_of_a_training_is_stratified():
    cases = [
        Case(case_id=f"c{i:03d}", image=Path("x.jpg"), extra={"stratum": "rare"} if i < 20 else {})
        for i in range(100)
    ]
    split = divide(cases, DataConfig(validation_share=0.2, test_share=0.1))
    assert sum(case_id < "c020" for case_id in split.validation) == 4
    assert sum(case_id < "c020" for case_id in split.test) == 2

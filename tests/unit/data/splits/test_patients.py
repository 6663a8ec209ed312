"""A patient in two official parts is named, case by case, so that leaving them out repairs it."""

from pathlib import Path

from segnetr.data.case import Case
from segnetr.data.splits.patients import check_patients


def make(case_id: str, patient: str | None, part: str | None) -> Case:
    return Case(case_id=case_id, image=Path(f"{case_id}.png"), patient_id=patient, split=part)


def test_cases_of_a_patient_in_two_parts_are_named_and_those_of_the_test_are_kept():
    cases = [
        make("a", "p", "train"),
        make("b", "p", "test"),
        make("c", "p", "validation"),
        make("d", "q", "train"),
        make("e", "q", "train"),
        make("f", None, "train"),
        make("g", None, "test"),
        make("h", "r", None),
    ]
    faults = check_patients(cases)
    assert [(fault.case_id, fault.kind) for fault in faults] == [
        ("a", "patient-in-two-parts"),
        ("c", "patient-in-two-parts"),
    ]
    assert "patient p has 1 in validation and 1 in test" in faults[0].message
    named = {fault.case_id for fault in faults}
    assert check_patients([case for case in cases if case.case_id not in named]) == []

"""Patients in two official splits are reported case by case."""

from pathlib import Path

from segnetr.data.case import Case
from segnetr.data.validation.audit import check_patients


def make(case_id: str, patient: str | None, part: str | None) -> Case:
    return Case(case_id=case_id, image=Path(f"{case_id}.png"), patient_id=patient, split=part)


def test_cases_of_a_patient_in_two_splits_are_reported_except_test_cases():
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
    issues = check_patients(cases)
    assert [(issue.case_id, issue.kind) for issue in issues] == [
        ("a", "patient-in-two-splits"),
        ("c", "patient-in-two-splits"),
    ]
    assert "patient p has 1 in validation and 1 in test" in issues[0].message
    named = {issue.case_id for issue in issues}
    assert check_patients([case for case in cases if case.case_id not in named]) == []

"""Is a patient in two parts of the official split? Then scores promise too much."""

from collections import Counter
from collections.abc import Sequence

from segnetr.data.case import Case, SplitName
from segnetr.data.validation.audit import Issue

# From the part that gives its cases up to the one that keeps them.
_RANKS: tuple[SplitName, ...] = ("train", "validation", "test")


def check_patients(cases: Sequence[Case]) -> list[Issue]:
    """Name the cases whose patient is in a part nearer to the test as well.

    Without the cases that are named, each patient is in one part alone, and no test case is lost.

    Returns:
        The issues in the order of the cases.
    """
    parts: dict[str, Counter[SplitName]] = {}
    for case in cases:
        if case.patient_id is not None and case.split is not None:
            parts.setdefault(case.patient_id, Counter())[case.split] += 1
    return [
        _describe(case, parts[case.patient_id])
        for case in cases
        if case.patient_id in parts
        and case.split is not None
        and case.split != max(parts[case.patient_id], key=_RANKS.index)
    ]


def _describe(case: Case, counts: Counter[SplitName]) -> Issue:
    others = " and ".join(
        f"{counts[part]} in {part}" for part in _RANKS if part in counts and part != case.split
    )
    message = (
        f"{case.image}: it is in {case.split}, and its patient {case.patient_id} has {others}; "
        "leave the case out"
    )
    return Issue(
        case_id=case.case_id, path=case.image, kind="patient-in-two-parts", message=message
    )

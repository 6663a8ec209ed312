"""By what a split of cases is stratified: a word for each case."""

from collections.abc import Sequence

from segnetr.data.case import Case

# Facts by which readers name what a split should keep in proportion; the first that is there.
_FACTS = ("stratum", "diagnosis")


def find_strata(cases: Sequence[Case]) -> dict[str, str]:
    """Give a word for each case id: a fact named "stratum", the label, or the diagnosis.

    Cases of which nothing is known share the empty word.
    """
    return {case.case_id: _find_word(case) for case in cases}


def _find_word(case: Case) -> str:
    if _FACTS[0] not in case.extra and case.label is not None:
        return str(case.label)
    return next((case.extra[name] for name in _FACTS if name in case.extra), "")

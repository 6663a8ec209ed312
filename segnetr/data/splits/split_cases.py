"""Split the cases of a dataset with the settings of a configuration.

Every command calls `divide`, so that all of them agree on the split.
"""

from collections.abc import Sequence

from segnetr.config.schema.segmentation import DataConfig
from segnetr.data.case import Case, Split
from segnetr.data.splits.folds import make_fold_split
from segnetr.data.splits.split import make_split

# Metadata that a split is stratified by. The first name that a case has is used.
_STRATUM_FIELDS = ("stratum", "diagnosis")


def divide(cases: Sequence[Case], config: DataConfig) -> Split:
    """Split cases as a training run with these settings does.

    The split is stratified, keeps patients in one split, and does not depend on the order of cases.

    Raises:
        UsageError: If the cases cannot be split with these settings.
        DataError: If two cases have the same id.
    """
    strata = find_strata(cases)
    split = make_split(
        cases,
        validation_share=config.validation_share,
        test_share=config.test_share,
        seed=config.split_seed,
        strata=strata,
    )
    if config.fold is None:
        return split
    return make_fold_split(
        cases,
        fold=config.fold,
        folds=config.folds,
        seed=config.split_seed,
        test=split.test,
        strata=strata,
    )


def find_strata(cases: Sequence[Case]) -> dict[str, str]:
    """Return the stratum of each case by id: its "stratum", its label, or its diagnosis.

    Cases without any of these have the stratum "".
    """
    return {case.case_id: _find_stratum(case) for case in cases}


def _find_stratum(case: Case) -> str:
    if _STRATUM_FIELDS[0] not in case.extra and case.label is not None:
        return str(case.label)
    return next((case.extra[name] for name in _STRATUM_FIELDS if name in case.extra), "")

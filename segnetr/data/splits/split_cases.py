"""Which case of a data set belongs to which part: one answer for every command that asks."""

from collections.abc import Sequence

from segnetr.config.schema.segmentation import DataConfig
from segnetr.data.case import Case, Split
from segnetr.data.splits.folds import make_fold_split
from segnetr.data.splits.split import make_split
from segnetr.data.splits.stratification import find_strata


def divide(cases: Sequence[Case], config: DataConfig) -> Split:
    """Divide cases the way a training with these settings does.

    Stratified by what is known of the cases, whole patients, independent of the order of `cases`.

    Raises:
        UsageError: If they cannot be divided so.
        DataError: If two cases have one id.
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

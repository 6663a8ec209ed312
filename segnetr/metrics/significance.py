"""Paired comparison of two networks: effect size, bootstrap interval and significance test.

Cases of one patient are correlated, so the unit is the patient: the bootstrap samples patients with
all of their cases, and the signed-rank test uses the mean difference of each patient.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from segnetr.metrics.paired import Difference, compare_paired
from segnetr.metrics.summary import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedResult:
    """Result of a paired comparison, second against first.

    Attributes:
        first_mean: Mean of the first over the shared cases.
        second_mean: Mean of the second over the shared cases.
        difference: Mean of second minus first, with a bootstrap interval.
        patients: Number of patients, the unit of the bootstrap and the test.
        higher: Cases in which the second value is higher.
        lower: Cases in which the second value is lower.
        equal: Cases in which both values are equal.
        effect: Matched-pairs rank-biserial correlation, -1 to 1. Positive: the second is higher.
            0 if all values are equal.
        p_value: P value of the two-sided Wilcoxon signed-rank test. 1 if all values are equal.
    """

    first_mean: float
    second_mean: float
    difference: Difference
    patients: int
    higher: int
    lower: int
    equal: int
    effect: float
    p_value: float

    @property
    def is_identical(self) -> bool:
        """Whether both values are equal for every case."""
        return self.higher == self.lower == 0


def measure_difference(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    patients: Mapping[str, str] | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
) -> PairedResult:
    """Compare two sets of scores case by case, with interval, test and effect size.

    Args:
        first: Score by case id.
        second: Score by case id, of the other network.
        patients: Patient by case id. A case without an entry is its own patient.
        bootstrap: Number of resamples. 0: no interval.
        seed: Seed of the resampling.

    Raises:
        ValueError: If no case is in both.

    Source:
        Wilcoxon, Individual Comparisons by Ranking Methods, Biometrics Bulletin 1(6), 1945
        (differences of 0 are excluded); Kerby, The Simple Difference Formula, Comprehensive
        Psychology 3, 2014 (rank-biserial correlation).
    """
    difference = compare_paired(first, second, patients=patients, bootstrap=bootstrap, seed=seed)
    shared = sorted(first.keys() & second.keys())
    gaps = np.array([second[case] - first[case] for case in shared])
    units = _mean_by_patient(dict(zip(shared, gaps.tolist(), strict=True)), patients or {})
    effect, p_value = _rank_signs(units)
    return PairedResult(
        first_mean=float(np.mean([first[case] for case in shared])),
        second_mean=float(np.mean([second[case] for case in shared])),
        difference=difference,
        patients=len(units),
        higher=int(np.count_nonzero(gaps > 0)),
        lower=int(np.count_nonzero(gaps < 0)),
        equal=int(np.count_nonzero(gaps == 0)),
        effect=effect,
        p_value=p_value,
    )


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for multiple testing, controlling the family-wise error rate.

    Args:
        p_values: One per test, in any order. The tests may be dependent.

    Returns:
        Corrected p values in the same order, at most 1.

    Source:
        Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scand. J. Statist. 6, 1979.
    """
    count = len(p_values)
    order = sorted(range(count), key=lambda index: p_values[index])
    corrected = [1.0] * count
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def _mean_by_patient(gaps: Mapping[str, float], patients: Mapping[str, str]) -> FloatArray:
    by_patient: dict[tuple[bool, str], list[float]] = defaultdict(list)
    for case, gap in gaps.items():
        # A case without a patient must not be merged with a patient of the same name.
        by_patient[(case in patients, patients.get(case, case))].append(gap)
    return np.array([np.mean(found) for found in by_patient.values()])


def _rank_signs(gaps: FloatArray) -> tuple[float, float]:
    """Return the rank-biserial correlation and the p value of differences."""
    moved = gaps[gaps != 0]
    if moved.size == 0:
        return 0.0, 1.0
    ranks = stats.rankdata(np.abs(moved))
    effect = float((ranks[moved > 0].sum() - ranks[moved < 0].sum()) / ranks.sum())
    return effect, float(stats.wilcoxon(moved, alternative="two-sided").pvalue)

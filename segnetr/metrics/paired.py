"""Two networks on the same cases: the mean difference and how sure it is."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The mean of second minus first over the cases both have.

    Attributes:
        mean: In the unit of the score.
        low: Lower end of the bootstrap interval, of 95 % unless another was asked for; None for
            fewer than two patients.
        high: Upper end.
        cases: Cases that both have.
    """

    mean: float
    low: float | None
    high: float | None
    cases: int


def compare_paired(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    patients: Mapping[str, str] | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Difference:
    """Compare two sets of scores case by case.

    Patients are drawn with replacement, each with all of its cases, and the mean difference of the
    cases drawn is taken; the interval is the 2.5th to 97.5th percentile for a confidence of 0.95.
    What makes some cases harder for both cancels out.

    Args:
        first: Score by case id.
        second: Score by case id, of the other network.
        patients: Patient by case id; a case that is not named stands alone.
        bootstrap: Resamples; 0: no interval.
        seed: Seed of the resampling (numpy's PCG64).
        confidence: Share of the resamples that lie in the interval.

    Raises:
        ValueError: If no case is in both.
    """
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise ValueError("no case was scored with both networks")
    owner = dict(patients or {})
    sums: dict[tuple[bool, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for case in shared:
        # A case that stands alone must not fall together with a patient of the same name.
        entry = sums[(case in owner, owner.get(case, case))]
        entry[0] += second[case] - first[case]
        entry[1] += 1
    table = np.array([sums[key] for key in sorted(sums)])
    mean = float(table[:, 0].sum() / table[:, 1].sum())
    if bootstrap == 0 or len(table) < 2:
        return Difference(mean=mean, low=None, high=None, cases=len(shared))
    generator = np.random.Generator(np.random.PCG64(seed))
    synthetic = table[generator.integers(len(table), size=(bootstrap, len(table)))].sum(axis=1)
    tail = 50 * (1 - confidence)  # percent on either side
    low, high = np.percentile(synthetic[:, 0] / synthetic[:, 1], (tail, 100 - tail))
    return Difference(mean=mean, low=float(low), high=float(high), cases=len(shared))

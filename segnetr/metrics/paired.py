"""Mean difference between two networks on the same cases, with a bootstrap interval."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean of second minus first over the shared cases.

    Attributes:
        mean: Mean difference, in the unit of the score.
        low: Lower end of the bootstrap interval (95 % by default). None for fewer than two
            patients.
        high: Upper end of the interval.
        cases: Number of shared cases.
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

    Patients are sampled with replacement, each with all of its cases, and the mean difference is
    computed for each resample. With a confidence of 0.95, the interval is the 2.5th to 97.5th
    percentile. Pairing cancels differences in difficulty between cases.

    Args:
        first: Score by case id.
        second: Score by case id, of the other network.
        patients: Patient by case id. A case without an entry is its own patient.
        bootstrap: Number of resamples. 0: no interval.
        seed: Seed of the resampling (numpy's PCG64).
        confidence: Share of the resamples inside the interval.

    Raises:
        ValueError: If no case is in both.
    """
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise ValueError("no case was scored with both networks")
    owner = dict(patients or {})
    sums: dict[tuple[bool, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for case in shared:
        # A case without a patient must not be merged with a patient of the same name.
        entry = sums[(case in owner, owner.get(case, case))]
        entry[0] += second[case] - first[case]
        entry[1] += 1
    table = np.array([sums[key] for key in sorted(sums)])
    mean = float(table[:, 0].sum() / table[:, 1].sum())
    if bootstrap == 0 or len(table) < 2:
        return Difference(mean=mean, low=None, high=None, cases=len(shared))
    generator = np.random.Generator(np.random.PCG64(seed))
    sampled = table[generator.integers(len(table), size=(bootstrap, len(table)))].sum(axis=1)
    tail = 50 * (1 - confidence)  # percent on either side
    low, high = np.percentile(sampled[:, 0] / sampled[:, 1], (tail, 100 - tail))
    return Difference(mean=mean, low=float(low), high=float(high), cases=len(shared))

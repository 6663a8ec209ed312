"""Cross-validation folds, grouped by patient.

The fold of a case depends on the ids, patients and strata, on the seed and on the number of folds,
but not on the order of files in a directory.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from segnetr.data.case import Split, Splittable
from segnetr.errors import UsageError


def assign_folds(
    cases: Sequence[Splittable],
    *,
    folds: int,
    seed: int,
    strata: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Assign cases to folds of similar size with similar shares of each stratum.

    Patients are assigned stratum by stratum, the largest first, ties in the order of a hash of seed
    and id. Each goes to the fold with the fewest cases of its stratum, and among those to the
    smallest fold.

    Args:
        cases: In any order, with unique ids.
        folds: Number of folds F, at least 2.
        seed: Other seeds give other folds.
        strata: Stratum by case id. A patient with several strata counts for the most frequent one.

    Returns:
        Fold 1..F by case id. No fold is empty.

    Raises:
        UsageError: If there are fewer patients than folds, or fewer than two folds.
    """
    groups: dict[str, list[str]] = {}
    for case in cases:
        is_single = case.patient_id is None
        key = f"case:{case.case_id}" if is_single else f"patient:{case.patient_id}"
        groups.setdefault(key, []).append(case.case_id)
    if folds < 2:
        raise UsageError(f"--folds {folds}: the minimum is 2")
    if len(groups) < folds:
        raise UsageError(f"--folds {folds}: there are only {len(groups)} patients")
    strata_by_key = {key: find_group_stratum(ids, strata or {}) for key, ids in groups.items()}
    order = sorted(
        groups, key=lambda key: (strata_by_key[key], -len(groups[key]), _hash(seed, key), key)
    )
    sizes = [0] * folds
    by_stratum: dict[str, list[int]] = {}
    assigned: dict[str, int] = {}
    for key in order:
        counts = by_stratum.setdefault(strata_by_key[key], [0] * folds)
        fold = min(range(folds), key=lambda index: (counts[index], sizes[index], index))
        counts[fold] += len(groups[key])
        sizes[fold] += len(groups[key])
        assigned |= dict.fromkeys(groups[key], fold + 1)
    return dict(sorted(assigned.items()))


def make_fold_split(
    cases: Sequence[Splittable],
    *,
    fold: int,
    folds: int,
    seed: int,
    test: Collection[str],
    strata: Mapping[str, str] | None = None,
) -> Split:
    """Return the split that validates on one fold and trains on the others.

    Args:
        cases: All cases.
        fold: The validation fold, 1..F.
        folds: Number of folds F.
        seed: As in `assign_folds`.
        test: Ids of the test split, which is the same for every fold.
        strata: As in `assign_folds`.

    Raises:
        UsageError: As `assign_folds`, or if the fold does not exist.
    """
    if not 1 <= fold <= folds:
        raise UsageError(f"--fold {fold}: must be 1 to {folds} (--folds)")
    test_ids = set(test)
    others = [case for case in cases if case.case_id not in test_ids]
    assigned = assign_folds(others, folds=folds, seed=seed, strata=strata)
    return Split(
        train=tuple(case_id for case_id, number in assigned.items() if number != fold),
        validation=tuple(case_id for case_id, number in assigned.items() if number == fold),
        test=tuple(sorted(test_ids)),
        origin="seeded",
        seed=seed,
    )


def find_group_stratum(ids: Sequence[str], strata: Mapping[str, str]) -> str:
    """Return the most frequent stratum of a group of cases. Ties go to the first in the alphabet.

    Args:
        ids: The ids of the cases.
        strata: Stratum by case id. Cases without one have the stratum "".
    """
    counts = Counter(strata.get(case_id, "") for case_id in ids)
    return min(counts, key=lambda stratum: (-counts[stratum], stratum))


def _hash(seed: int, key: str) -> str:
    return hashlib.sha256(f"fold {seed}:{key}".encode()).hexdigest()

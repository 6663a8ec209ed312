"""Cross-validation: cases divided into folds of whole patients, each fold validated on once.

Which fold a case is in depends on the ids, patients and strata, the seed and the number of folds,
never on the order of a directory.
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
    """Divide cases into folds of about equal size and about equal shares of each stratum.

    Patients are taken by stratum, the largest first, equal ones in the order of a hash of seed and
    id; each goes to the fold that has the fewest cases of its stratum, of those to the smallest.

    Args:
        cases: In any order, each id once.
        folds: Number of folds F, at least 2.
        seed: Other seeds give other folds.
        strata: A word for each case id; a patient with several counts for the most frequent one.

    Returns:
        Fold 1..F by case id; no fold is empty.

    Raises:
        UsageError: If there are fewer patients than folds, or fewer than two folds.
    """
    groups: dict[str, list[str]] = {}
    for case in cases:
        alone = case.patient_id is None
        key = f"case:{case.case_id}" if alone else f"patient:{case.patient_id}"
        groups.setdefault(key, []).append(case.case_id)
    if folds < 2:
        raise UsageError(f"--folds {folds}: at least 2 are needed")
    if len(groups) < folds:
        raise UsageError(f"--folds {folds}: there are only {len(groups)} patients to divide")
    words = {key: _find_word(ids, strata or {}) for key, ids in groups.items()}
    order = sorted(groups, key=lambda key: (words[key], -len(groups[key]), _hash(seed, key), key))
    sizes = [0] * folds
    by_stratum: dict[str, list[int]] = {}
    assigned: dict[str, int] = {}
    for key in order:
        counts = by_stratum.setdefault(words[key], [0] * folds)
        fold = min(range(folds), key=lambda place: (counts[place], sizes[place], place))
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
    """Give the split of one fold: it is validated on, the others are trained on.

    Args:
        cases: All cases.
        fold: Which one, 1..F.
        folds: Number of folds F.
        seed: As in `assign_folds`.
        test: Ids of the test part, which is in no fold and the same in each split.
        strata: As in `assign_folds`.

    Raises:
        UsageError: As `assign_folds`, or if there is no such fold.
    """
    if not 1 <= fold <= folds:
        raise UsageError(f"--fold {fold}: there are folds 1 to {folds} (--folds)")
    kept = set(test)
    divided = [case for case in cases if case.case_id not in kept]
    assigned = assign_folds(divided, folds=folds, seed=seed, strata=strata)
    return Split(
        train=tuple(case_id for case_id, place in assigned.items() if place != fold),
        validation=tuple(case_id for case_id, place in assigned.items() if place == fold),
        test=tuple(sorted(kept)),
        origin="seeded",
        seed=seed,
    )


def _find_word(ids: Sequence[str], strata: Mapping[str, str]) -> str:
    counts = Counter(strata.get(case_id, "") for case_id in ids)
    return min(counts, key=lambda word: (-counts[word], word))


def _hash(seed: int, key: str) -> str:
    return hashlib.sha256(f"fold {seed}:{key}".encode()).hexdigest()

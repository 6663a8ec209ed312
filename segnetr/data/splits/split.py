"""Training, validation and test splits: the official one if possible, otherwise a seeded one.

A seeded split depends only on the seed and the ids, not on the order of files in a directory. All
cases of a patient are in one split. Adding a case later moves few of the others.
"""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from segnetr.data.case import SPLIT_NAMES, Split, SplitName, Splittable
from segnetr.data.splits.folds import find_group_stratum
from segnetr.errors import DataError, UsageError, WriteError

_FORMAT = "segnetr-split-1"

# The ids of one patient's cases, or the id of a single case without a patient.
_Group = tuple[str, ...]


def make_split(
    cases: Sequence[Splittable],
    *,
    validation_share: float,
    test_share: float,
    seed: int,
    strata: Mapping[str, str] | None = None,
) -> Split:
    """Split cases into training, validation and test.

    If every official split has cases, the official split is used. Otherwise an official validation
    or test split is used as it is if other cases remain for training, and missing splits are drawn
    from those. With a share above 0, validation gets at least one patient if there are two, and
    test gets at least one if there are three.

    Args:
        cases: All cases, in any order.
        validation_share: Share for validation of the cases that are not in an official split.
        test_share: Share for testing, likewise.
        seed: Other seeds give other splits.
        strata: Stratum by case id. Each split gets about its share of each stratum. A patient with
            several strata counts for the most frequent one.

    Raises:
        UsageError: If there are no cases, or the shares leave no case for training.
        DataError: If two cases have the same id.
    """
    _check_request(cases, validation_share, test_share)
    official = {name: _ids_of(cases, name) for name in SPLIT_NAMES}
    if all(official.values()):
        return _build_split(official, None)
    fixed: dict[SplitName, list[str]] = {}
    if len(official["validation"]) + len(official["test"]) < len(cases):
        fixed = {name: ids for name, ids in official.items() if ids and name != "train"}
    fixed_ids = {case_id for ids in fixed.values() for case_id in ids}
    pool = _pool_groups([c for c in cases if c.case_id not in fixed_ids], seed, strata or {})
    total = len(cases) - len(fixed_ids)
    needs_validation = validation_share > 0 and "validation" not in fixed
    ids_by_split: dict[SplitName, list[str]] = {**fixed}
    # Test first, so that it does not change with the validation share.
    if test_share > 0 and "test" not in fixed:
        ids_by_split["test"] = _take(
            pool, share=test_share, total=total, leave=1 + needs_validation
        )
    if needs_validation:
        ids_by_split["validation"] = _take(pool, share=validation_share, total=total, leave=1)
    ids_by_split["train"] = [i for groups in pool.values() for group in groups for i in group]
    return _build_split(ids_by_split, seed)


def write_split(split: Split, path: Path) -> None:
    """Write a split as JSON, atomically.

    Raises:
        WriteError: If the file cannot be written.
    """
    record: dict[str, Any] = {
        "format": _FORMAT,
        "origin": split.origin,
        "seed": split.seed,
        "sha256": split.sha256,
        **{name: list(split.ids(name)) for name in SPLIT_NAMES},
    }
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(record, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise WriteError(f"{path}: the split cannot be written ({error.strerror})") from error


def read_split(path: Path) -> Split:
    """Read a split and verify its hash.

    Raises:
        UsageError: If the file does not exist.
        DataError: If the file is damaged, was changed, or is not a split.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such split file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as a split ({error})") from error
    if not _is_split_record(record):
        raise DataError(f"{path}: not a split in the format {_FORMAT}; create it again")
    split = Split(
        train=tuple(record["train"]),
        validation=tuple(record["validation"]),
        test=tuple(record["test"]),
        origin=record["origin"],
        seed=record["seed"],
    )
    if split.sha256 != record["sha256"]:
        raise DataError(
            f"{path}: the split was changed after it was written (its hash is "
            f"{split.sha256[:12]}.., the recorded one is {str(record['sha256'])[:12]}..); restore "
            "the file, or start a new run"
        )
    return split


def _is_split_record(record: Any) -> bool:
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        return False
    lists = [record.get(name) for name in SPLIT_NAMES]
    if not all(isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in lists):
        return False
    if not isinstance(record.get("sha256"), str) or "seed" not in record:
        return False
    seed = record["seed"]
    return record.get("origin") in {"official", "seeded"} and (seed is None or type(seed) is int)


def _check_request(cases: Sequence[Splittable], validation_share: float, test_share: float) -> None:
    if not cases:
        raise UsageError("there are no cases to split")
    for name, share in (("validation_share", validation_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise UsageError(f"data.{name} is {share:g}; it must be at least 0 and below 1")
    if validation_share + test_share >= 1:
        raise UsageError(
            f"data.validation_share {validation_share:g} and data.test_share {test_share:g} leave "
            "no case for training; their sum must be below 1"
        )
    case_id, count = Counter(case.case_id for case in cases).most_common(1)[0]
    if count > 1:
        raise DataError(
            f"{count} cases have the id {case_id}; ids must be unique (segnetr data check)"
        )


def _ids_of(cases: Sequence[Splittable], name: SplitName) -> list[str]:
    return [case.case_id for case in cases if case.split == name]


def _build_split(ids: Mapping[SplitName, Sequence[str]], seed: int | None) -> Split:
    return Split(
        train=tuple(sorted(ids["train"])),
        validation=tuple(sorted(ids.get("validation", ()))),
        test=tuple(sorted(ids.get("test", ()))),
        origin="official" if seed is None else "seeded",
        seed=seed,
    )


def _pool_groups(
    cases: Sequence[Splittable], seed: int, strata: Mapping[str, str]
) -> dict[str, list[_Group]]:
    """Return the groups of each stratum, in the order of their hashes."""
    members: dict[str, list[str]] = {}
    for case in cases:
        is_single = case.patient_id is None
        key = f"case:{case.case_id}" if is_single else f"patient:{case.patient_id}"
        members.setdefault(key, []).append(case.case_id)

    pool: dict[str, list[_Group]] = {}
    for key in sorted(members, key=lambda key: (_hash(f"{seed}:{key}"), key)):
        stratum = find_group_stratum(members[key], strata)
        pool.setdefault(stratum, []).append(tuple(sorted(members[key])))
    return pool


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _take(pool: dict[str, list[_Group]], *, share: float, total: int, leave: int) -> list[str]:
    """Remove groups from the pool until they contain a share of the cases.

    Args:
        pool: The groups of each stratum. Taken groups are removed.
        share: Share of `total`.
        total: Number of cases that are split, including those already taken.
        leave: Groups that must stay in the pool.

    Returns:
        The ids of the taken groups. At least one group if the pool has more than `leave`.
    """
    sizes = {stratum: sum(map(len, groups)) for stratum, groups in pool.items()}
    quotas = _divide(max(1, math.floor(share * total + 0.5)), sizes)
    spare = sum(map(len, pool.values())) - leave
    taken: list[_Group] = []
    open_quota = 0
    for stratum in sorted(pool):
        # The next stratum compensates for an excess or a deficit of this one.
        open_quota += quotas[stratum]
        for group in list(pool[stratum]):
            # A patient that exceeds the quota is taken if that brings the share closer.
            if len(taken) < spare and 0 < len(group) <= 2 * open_quota:
                pool[stratum].remove(group)
                taken.append(group)
                open_quota -= len(group)
    if not taken and spare > 0:
        taken.append(_pop_smallest(pool))
    return [case_id for group in taken for case_id in group]


def _pop_smallest(pool: dict[str, list[_Group]]) -> _Group:
    """Remove the smallest group from the pool and return it."""
    candidates = [
        (len(group), stratum, index)
        for stratum in sorted(pool)
        for index, group in enumerate(pool[stratum])
    ]
    _, stratum, index = min(candidates)
    return pool[stratum].pop(index)


def _divide(number: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Divide a number in proportion to sizes, with the largest remainder method."""
    total = sum(sizes.values())
    exact = {stratum: number * size / total for stratum, size in sizes.items()}
    quotas = {stratum: min(math.floor(value), sizes[stratum]) for stratum, value in exact.items()}
    by_remainder = sorted(sizes, key=lambda stratum: (quotas[stratum] - exact[stratum], stratum))
    for stratum in by_remainder[: number - sum(quotas.values())]:
        quotas[stratum] += 1
    return quotas

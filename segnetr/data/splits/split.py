"""Which case is trained on, validated on, tested on: official where it can be, seeded elsewhere.

A seeded split depends on the seed and on the ids alone, never on the order of a directory. The
cases of a patient stay together. A case that is added later moves few of the others.
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
from segnetr.errors import DataError, UsageError, WriteError

_FORMAT = "segnetr-split-1"

# The ids of one patient, or the one id of a case that stands alone.
_Group = tuple[str, ...]


def make_split(
    cases: Sequence[Splittable],
    *,
    validation_share: float,
    test_share: float,
    seed: int,
    strata: Mapping[str, str] | None = None,
) -> Split:
    """Divide cases into training, validation and test.

    Where each official part has a case, the official split is taken. Else, an official validation
    or test part stays what it is as long as there are other cases to train on, and a part that is
    missing is drawn from those others. A share above 0 gives at least one patient to validation
    where there are two, and to test where there are three.

    Args:
        cases: All cases, in any order.
        validation_share: Share of the divided cases for validation.
        test_share: Share of the divided cases for testing.
        seed: Other seeds give other splits.
        strata: A word for each case id; each part gets about its share of each word. A patient
            with several words counts for the most frequent one.

    Raises:
        UsageError: If there are no cases, or the shares leave nothing to train on.
        DataError: If two cases have one id.
    """
    _check_request(cases, validation_share, test_share)
    official = {name: _ids_of(cases, name) for name in SPLIT_NAMES}
    if all(official.values()):
        return _build_split(official, None)
    kept: dict[SplitName, list[str]] = {}
    if len(official["validation"]) + len(official["test"]) < len(cases):
        kept = {name: ids for name, ids in official.items() if ids and name != "train"}
    fixed = {case_id for ids in kept.values() for case_id in ids}
    pool = _pool_groups([c for c in cases if c.case_id not in fixed], seed, strata or {})
    total = len(cases) - len(fixed)
    wants_validation = validation_share > 0 and "validation" not in kept
    parts: dict[SplitName, list[str]] = {**kept}
    # Test goes first, so that it stays the same when only the validation share changes.
    if test_share > 0 and "test" not in kept:
        parts["test"] = _take(pool, share=test_share, total=total, leave=1 + wants_validation)
    if wants_validation:
        parts["validation"] = _take(pool, share=validation_share, total=total, leave=1)
    parts["train"] = [i for groups in pool.values() for group in groups for i in group]
    return _build_split(parts, seed)


def write_split(split: Split, path: Path) -> None:
    """Write a split as JSON, whole or not at all.

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
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8") as file:
            file.write(json.dumps(record, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise WriteError(f"{path}: the split cannot be written ({error.strerror})") from error


def read_split(path: Path) -> Split:
    """Read a split and prove that it is the one that was written.

    Raises:
        UsageError: If there is no such file.
        DataError: If the file is damaged, was changed, or is no split.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path}: there is no such split") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as a split ({error})") from error
    if not _is_split_record(record):
        raise DataError(f"{path}: not a split in the format {_FORMAT}; make it anew")
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
            f"{split.sha256[:12]}.., recorded is {str(record['sha256'])[:12]}..); restore the "
            "file, or start a new run"
        )
    return split


def _is_split_record(record: Any) -> bool:
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        return False
    lists = [record.get(name) for name in SPLIT_NAMES]
    if not all(isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in lists):
        return False
    seed = record.get("seed")
    return record.get("origin") in {"official", "seeded"} and (seed is None or type(seed) is int)


def _check_request(cases: Sequence[Splittable], validation_share: float, test_share: float) -> None:
    if not cases:
        raise UsageError("there are no cases to split")
    for name, share in (("validation_share", validation_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise UsageError(f"data.{name} is {share:g}; it lies from 0 to below 1")
    if validation_share + test_share >= 1:
        raise UsageError(
            f"data.validation_share {validation_share:g} and data.test_share {test_share:g} leave "
            "nothing to train on; their sum must lie below 1"
        )
    case_id, count = Counter(case.case_id for case in cases).most_common(1)[0]
    if count > 1:
        raise DataError(
            f"case {case_id} is there {count} times; an id must be unique (segnetr data check)"
        )


def _ids_of(cases: Sequence[Splittable], name: SplitName) -> list[str]:
    return [case.case_id for case in cases if case.split == name]


def _build_split(parts: Mapping[SplitName, Sequence[str]], seed: int | None) -> Split:
    return Split(
        train=tuple(sorted(parts["train"])),
        validation=tuple(sorted(parts.get("validation", ()))),
        test=tuple(sorted(parts.get("test", ()))),
        origin="official" if seed is None else "seeded",
        seed=seed,
    )


def _pool_groups(
    cases: Sequence[Splittable], seed: int, strata: Mapping[str, str]
) -> dict[str, list[_Group]]:
    """Give the groups of each stratum, in the order of their hashes."""
    members: dict[str, list[str]] = {}
    for case in cases:
        alone = case.patient_id is None
        key = f"case:{case.case_id}" if alone else f"patient:{case.patient_id}"
        members.setdefault(key, []).append(case.case_id)

    pool: dict[str, list[_Group]] = {}
    for key in sorted(members, key=lambda key: (_hash(f"{seed}:{key}"), key)):
        words = Counter(strata.get(case_id, "") for case_id in members[key])
        word = min(words, key=lambda word: (-words[word], word))
        pool.setdefault(word, []).append(tuple(sorted(members[key])))
    return pool


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _take(pool: dict[str, list[_Group]], *, share: float, total: int, leave: int) -> list[str]:
    """Move groups out of the pool until they hold a share of the cases.

    Args:
        pool: The groups of each stratum; the taken ones are removed.
        share: Share of `total`.
        total: Cases that are divided, those already taken included.
        leave: Groups that must stay in the pool.

    Returns:
        The ids of the taken groups; at least one group if more than `leave` are there.
    """
    sizes = {word: sum(map(len, groups)) for word, groups in pool.items()}
    quotas = _divide(max(1, math.floor(share * total + 0.5)), sizes)
    spare = sum(map(len, pool.values())) - leave
    taken: list[_Group] = []
    open_quota = 0
    for word in sorted(pool):
        # What one stratum gave too much or too little, the next one makes good.
        open_quota += quotas[word]
        for group in list(pool[word]):
            # A patient that overshoots is taken if the share is then missed by less.
            if len(taken) < spare and 0 < len(group) <= 2 * open_quota:
                pool[word].remove(group)
                taken.append(group)
                open_quota -= len(group)
    if not taken and spare > 0:
        candidates = [
            (len(group), word, at) for word in sorted(pool) for at, group in enumerate(pool[word])
        ]
        _, word, at = min(candidates)
        taken.append(pool[word].pop(at))
    return [case_id for group in taken for case_id in group]


def _divide(number: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Divide a number in proportion to sizes, by the method of largest remainders."""
    total = sum(sizes.values())
    exact = {word: number * size / total for word, size in sizes.items()}
    quotas = {word: min(math.floor(value), sizes[word]) for word, value in exact.items()}
    by_remainder = sorted(sizes, key=lambda word: (quotas[word] - exact[word], word))
    for word in by_remainder[: number - sum(quotas.values())]:
        quotas[word] += 1
    return quotas

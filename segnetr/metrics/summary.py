"""Summarize scores over cases, with bootstrap intervals over patients."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from segnetr.metrics.score import (
    GROUND_TRUTH_PIXELS,
    PIXEL_COUNTS,
    PREDICTED_PIXELS,
    SHARED_PIXELS,
    Score,
    Summary,
    name_outcome,
)

#: Class name of the rows that hold the mean over the classes.
MEAN = "mean"

FloatArray = npt.NDArray[np.float64]
# {class: {metric: {case: value}}}
_Table = dict[str, dict[str, dict[str, float | None]]]

_LEVEL = (2.5, 97.5)
_DRAWS_AT_ONCE = 4_000_000  # 32 MB of row numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    cases: int
    missed: int
    false_alarms: int
    both_empty: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statistics:
    mean: float | None
    std: float | None = None
    median: float | None = None
    low: float | None = None
    high: float | None = None
    undefined: int = 0


def summarize(
    scores: Iterable[Score],
    *,
    patients: Mapping[str, str] | None = None,
    bootstrap: int = 2000,
    seed: int = 0,
) -> list[Summary]:
    """Summarize the scores of `score_masks` over all cases.

    The interval is the 2.5th to 97.5th percentile of the mean over `bootstrap` resamples. Patients
    are sampled with replacement, each with all of its cases. Cases of one patient are correlated,
    so sampling single cases would make the interval too narrow. The interval depends on the seed,
    not on the order of the scores.

    Args:
        scores: Scores of any number of cases, in any order.
        patients: Patient by case id. A case without an entry is its own patient.
        bootstrap: Number of resamples. 0: no interval.
        seed: Seed of the resampling (numpy's PCG64).

    Returns:
        For each class its metrics in the order of scoring, then `dice_pooled`. With more than one
        class also rows of the class "mean": the mean of each case over the classes, summarized
        like a class, but without a pooled row.

    Raises:
        ValueError: If a case was scored twice.
    """
    table = _tabulate(scores)
    owner = dict(patients or {})
    counts = {name: _count(rows) for name, rows in table.items()}
    summaries: list[Summary] = []
    for name, rows in table.items():
        for metric, values in rows.items():
            if metric not in PIXEL_COUNTS:
                found = _summarize_values(values, owner, bootstrap=bootstrap, seed=seed)
                summaries.append(_row(name, metric, statistics=found, counts=counts[name]))
        pooled = _pool(rows, owner, bootstrap=bootstrap, seed=seed)
        summaries.append(_row(name, "dice_pooled", statistics=pooled, counts=counts[name]))
    if len(table) > 1:
        total = _total(list(counts.values()))
        for metric, values in _mean_over_classes(table).items():
            found = _summarize_values(values, owner, bootstrap=bootstrap, seed=seed)
            summaries.append(_row(MEAN, metric, statistics=found, counts=total))
    return summaries


def select_summary(summaries: Sequence[Summary], metric: str) -> Summary:
    """Return the row of a metric that summarizes all classes: "mean", or the only class.

    Raises:
        KeyError: If no row has this metric.
    """
    rows = [row for row in summaries if row.metric == metric]
    if not rows:
        raise KeyError(metric)
    return next((row for row in rows if row.class_name == MEAN), rows[0])


def _tabulate(scores: Iterable[Score]) -> _Table:
    table: _Table = defaultdict(lambda: defaultdict(dict))
    for score in scores:
        values = table[score.class_name][score.metric]
        if score.case_id in values:
            raise ValueError(f"case {score.case_id!r} was scored twice; case ids must differ")
        values[score.case_id] = score.value
    return {name: dict(rows) for name, rows in table.items()}


def _column(rows: Mapping[str, Mapping[str, float | None]], metric: str) -> dict[str, float]:
    return {case: value or 0.0 for case, value in rows[metric].items()}


def _count(rows: Mapping[str, Mapping[str, float | None]]) -> _Counts:
    cases = rows[GROUND_TRUTH_PIXELS]
    outcomes = Counter(
        name_outcome({name: rows[name][case] for name in PIXEL_COUNTS}) for case in cases
    )
    return _Counts(
        cases=len(cases),
        missed=outcomes["missed"],
        false_alarms=outcomes["false_alarm"],
        both_empty=outcomes["both_empty"],
    )


def _total(counts: Sequence[_Counts]) -> _Counts:
    return _Counts(
        cases=max(count.cases for count in counts),
        missed=sum(count.missed for count in counts),
        false_alarms=sum(count.false_alarms for count in counts),
        both_empty=sum(count.both_empty for count in counts),
    )


def _row(class_name: str, metric: str, *, statistics: _Statistics, counts: _Counts) -> Summary:
    return Summary(class_name=class_name, metric=metric, **asdict(statistics), **asdict(counts))


def _summarize_values(
    values: Mapping[str, float | None], owner: Mapping[str, str], *, bootstrap: int, seed: int
) -> _Statistics:
    known = {case: values[case] for case in sorted(values)}
    defined = {case: value for case, value in known.items() if value is not None}
    if not defined:
        return _Statistics(mean=None, undefined=len(values))
    array = np.array(list(defined.values()))
    ones = dict.fromkeys(defined, 1.0)
    low, high = _interval(defined, ones, owner, bootstrap=bootstrap, seed=seed)
    return _Statistics(
        mean=float(array.mean()),
        std=float(array.std(ddof=1)) if array.size > 1 else None,
        median=float(np.median(array)),
        low=low,
        high=high,
        undefined=len(values) - len(defined),
    )


def _pool(
    rows: Mapping[str, Mapping[str, float | None]],
    owner: Mapping[str, str],
    *,
    bootstrap: int,
    seed: int,
) -> _Statistics:
    true, found = _column(rows, GROUND_TRUTH_PIXELS), _column(rows, PREDICTED_PIXELS)
    shared = {case: 2 * value for case, value in _column(rows, SHARED_PIXELS).items()}
    both = {case: true[case] + found[case] for case in true}
    total = sum(both.values())
    low, high = _interval(shared, both, owner, bootstrap=bootstrap, seed=seed)
    return _Statistics(mean=sum(shared.values()) / total if total else 1.0, low=low, high=high)


def _mean_over_classes(table: _Table) -> dict[str, dict[str, float | None]]:
    """Return {metric: {case: mean over the classes for which the metric is defined}}."""
    collected: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for rows in table.values():
        for metric, values in rows.items():
            if metric in PIXEL_COUNTS:
                continue
            for case, value in values.items():
                collected[metric][case] += [] if value is None else [value]
    return {
        metric: {case: float(np.mean(found)) if found else None for case, found in values.items()}
        for metric, values in collected.items()
    }


def _interval(
    parts: Mapping[str, float],
    wholes: Mapping[str, float],
    owner: Mapping[str, str],
    *,
    bootstrap: int,
    seed: int,
) -> tuple[float, float] | tuple[None, None]:
    """Return the bootstrap interval of sum(parts) / sum(wholes), resampled by patient."""
    by_patient: dict[tuple[bool, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for case in sorted(parts):
        # A case without a patient must not be merged with a patient of the same name.
        sums = by_patient[(case in owner, owner.get(case, case))]
        sums[0] += parts[case]
        sums[1] += wholes[case]
    if bootstrap == 0 or len(by_patient) < 2:
        return None, None
    sums_by_patient: FloatArray = np.array([by_patient[key] for key in sorted(by_patient)])
    low, high = np.percentile(_resample(sums_by_patient, bootstrap=bootstrap, seed=seed), _LEVEL)
    return float(low), float(high)


def _resample(sums: FloatArray, *, bootstrap: int, seed: int) -> FloatArray:
    """Return (bootstrap,) ratios of `sums` (patients, 2). 0 / 0 is 1, as for Dice."""
    generator = np.random.Generator(np.random.PCG64(seed))
    patients = len(sums)
    ratios = np.ones(bootstrap)
    step = max(1, _DRAWS_AT_ONCE // patients)
    for start in range(0, bootstrap, step):
        count = min(step, bootstrap - start)
        sampled = sums[generator.integers(patients, size=(count, patients))].sum(axis=1)
        np.divide(
            sampled[:, 0],
            sampled[:, 1],
            out=ratios[start : start + count],
            where=sampled[:, 1] > 0,
        )
    return ratios

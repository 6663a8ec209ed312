"""What a classifier's answers come to: scores with intervals, a table of classes, confusions."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from segnetr.metrics.classification import (
    Answers,
    FloatArray,
    calibrate,
    count_confusions,
    measure_all,
    measure_classes,
)

_LEVEL = (2.5, 97.5)
_NUMBERS_AT_ONCE = 4_000_000  # 32 MB of weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """One score over all classes.

    Attributes:
        metric: Its name.
        value: The score; None: undefined.
        low: Lower end of the 95 % interval; None: none.
        high: Upper end.
        left_out: Classes over which it could not be averaged, for they do not define it.
    """

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """One class against the rest; None: undefined.

    Attributes:
        class_name: The class.
        cases: Cases that have it.
        decided: Cases taken for it.
        recall: Share of its cases that are found.
        specificity: Share of the other cases that are not taken for it.
        precision: Share of the cases taken for it that are.
        f1: Harmonic mean of precision and recall.
        auroc: Area under the ROC curve.
        auroc_low: Lower end of its 95 % interval.
        auroc_high: Upper end.
    """

    class_name: str
    cases: int
    decided: int
    recall: float | None
    specificity: float | None
    precision: float | None
    f1: float | None
    auroc: float | None
    auroc_low: float | None = None
    auroc_high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """One bin of a reliability plot.

    Attributes:
        low: Lower edge of the confidence.
        high: Upper edge; it belongs to the bin.
        count: Cases in it (decisions, where a case has several labels).
        confidence: Mean confidence; None: an empty bin.
        frequency: Share that is true; None: an empty bin.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    frequency: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSummary:
    """Everything about the answers to a set of cases.

    Attributes:
        cases: Number of cases.
        groups: Number of patients or lesions that were resampled; cases that stand alone are one
            each.
        scores: Over all classes.
        classes: Each class.
        bins: Calibration.
        confusions: Cases by true class (rows) and decided class; empty where a case has several
            labels.
        absent: Classes that no case has.
    """

    cases: int
    groups: int
    scores: tuple[ClassScore, ...]
    classes: tuple[ClassRow, ...]
    bins: tuple[CalibrationBin, ...]
    confusions: tuple[tuple[int, ...], ...] = ()
    absent: tuple[str, ...] = field(default=())


def summarize_classes(
    answers: Answers, classes: Sequence[str], *, bins: int, bootstrap: int, seed: int
) -> ClassSummary:
    """Summarize a classifier's answers.

    The interval is the 2.5th to 97.5th percentile over `bootstrap` resamples. Groups are drawn with
    replacement, each with all of its cases, for cases of one patient resemble each other. A
    resample that does not define a score is left out of its interval.

    Args:
        answers: At least one case.
        classes: K class names.
        bins: Bins of the calibration error.
        bootstrap: Resamples; 0: no interval.
        seed: Seed of the resampling (numpy's PCG64).
    """
    members, count = _number_groups(answers)
    synthetic, drawn_areas = _resample(
        answers, members, count, bins=bins, bootstrap=bootstrap, seed=seed
    )
    rows = _describe_classes(answers, classes, drawn_areas)
    scores = []
    for metric, values in measure_all(answers, bins=bins).items():
        low, high = _interval(synthetic.get(metric))
        left_out = _undefined(metric, rows, several=answers.several)
        scores.append(
            ClassScore(
                metric=metric, value=_known(values[0]), low=low, high=high, left_out=left_out
            )
        )
    return ClassSummary(
        cases=len(answers.case_ids),
        groups=count,
        scores=tuple(scores),
        classes=tuple(rows),
        bins=_describe_bins(answers, bins),
        confusions=()
        if answers.several
        else tuple(tuple(map(int, row)) for row in count_confusions(answers)),
        absent=tuple(row.class_name for row in rows if row.cases == 0),
    )


def find_score(summary: ClassSummary, metric: str) -> ClassScore:
    """Give the score of a name.

    Raises:
        KeyError: If there is none.
    """
    for score in summary.scores:
        if score.metric == metric:
            return score
    raise KeyError(metric)


def _number_groups(answers: Answers) -> tuple[np.ndarray, int]:
    """Give each case the number of its group; a case that stands alone is one."""
    # Sorted, so that the same seed gives the same interval whatever the order of the cases.
    keys = [
        (1, group) if group else (0, case_id)
        for case_id, group in zip(answers.case_ids, answers.groups, strict=True)
    ]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    return np.array([numbers[key] for key in keys]), len(numbers)


def _resample(
    answers: Answers, members: np.ndarray, count: int, *, bins: int, bootstrap: int, seed: int
) -> tuple[dict[str, FloatArray], FloatArray | None]:
    """Give each score, (resamples,), and the area of each class, (resamples, K)."""
    if bootstrap == 0 or count < 2:
        return {}, None
    generator = np.random.Generator(np.random.PCG64(seed))
    found: list[dict[str, FloatArray]] = []
    areas: list[FloatArray] = []
    at_once = max(1, _NUMBERS_AT_ONCE // len(members))
    for start in range(0, bootstrap, at_once):
        size = min(at_once, bootstrap - start)
        draws = generator.integers(count, size=(size, count))
        times = np.stack([np.bincount(row, minlength=count) for row in draws])
        weights = times[:, members].astype(np.float64)
        found.append(measure_all(answers, bins=bins, weights=weights))
        areas.append(measure_classes(answers, weights).auroc)
    joined = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return joined, np.concatenate(areas)


def _interval(values: FloatArray | None) -> tuple[float, float] | tuple[None, None]:
    known = values[~np.isnan(values)] if values is not None else np.empty(0)
    if known.size < 2:
        return None, None
    low, high = np.percentile(known, _LEVEL)
    return float(low), float(high)


def _describe_classes(
    answers: Answers, classes: Sequence[str], areas: FloatArray | None
) -> list[ClassRow]:
    each = measure_classes(answers)
    held, decided = answers.ground_truth.sum(axis=0), answers.decisions.sum(axis=0)
    rows = []
    for index, name in enumerate(classes):
        low, high = _interval(None if areas is None else areas[:, index])
        defined = _known(each.auroc[0, index]) is not None
        rows.append(
            ClassRow(
                class_name=name,
                cases=int(held[index]),
                decided=int(decided[index]),
                recall=_known(each.recall[0, index]),
                specificity=_known(each.specificity[0, index]),
                precision=_known(each.precision[0, index]),
                f1=_known(each.f1[0, index]),
                auroc=_known(each.auroc[0, index]),
                auroc_low=low if defined else None,
                auroc_high=high if defined else None,
            )
        )
    return rows


def _undefined(metric: str, rows: Sequence[ClassRow], *, several: bool) -> tuple[str, ...]:
    """Name the classes that a mean over classes leaves out."""
    if metric == "balanced_accuracy":
        # With several labels it needs cases with the class and cases without it.
        gone = [row for row in rows if row.recall is None or (several and row.specificity is None)]
    elif metric in ("auroc", "f1"):
        gone = [row for row in rows if getattr(row, metric) is None]
    else:
        gone = []
    return tuple(row.class_name for row in gone)


def _describe_bins(answers: Answers, bins: int) -> tuple[CalibrationBin, ...]:
    found = calibrate(answers, bins=bins)
    return tuple(
        CalibrationBin(
            low=float(found.edges[index]),
            high=float(found.edges[index + 1]),
            count=int(found.weight[0, index]),
            confidence=_known(found.confidence[0, index]),
            frequency=_known(found.frequency[0, index]),
        )
        for index in range(bins)
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

"""Summary of a classifier: scores with intervals, metrics per class, confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from segnetr.metrics.classification import (
    LabeledPredictions,
    calibrate,
    count_confusions,
    measure_all,
    measure_classes,
)
from segnetr.metrics.summary import FloatArray

_LEVEL = (2.5, 97.5)
_NUMBERS_AT_ONCE = 4_000_000  # 32 MB of weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """One score over all classes.

    Attributes:
        metric: Name of the metric.
        value: The score. None: undefined.
        low: Lower end of the 95 % interval. None: no interval.
        high: Upper end of the interval.
        left_out: Classes excluded from the mean because the metric is undefined for them.
    """

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """One-vs-rest metrics of one class. None: undefined.

    Attributes:
        class_name: The class.
        cases: Cases of the class.
        decided: Cases predicted as the class.
        recall: True positives / cases of the class.
        specificity: True negatives / cases of other classes.
        precision: True positives / cases predicted as the class.
        f1: Harmonic mean of precision and recall.
        auroc: Area under the ROC curve.
        auroc_low: Lower end of the 95 % interval of `auroc`.
        auroc_high: Upper end of the interval.
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
    """One bin of a reliability diagram.

    Attributes:
        low: Lower edge of the confidence.
        high: Upper edge, included in the bin.
        count: Cases in the bin (decisions if the task is multi-label).
        confidence: Mean confidence. None: the bin is empty.
        frequency: Share of correct predictions. None: the bin is empty.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    frequency: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSummary:
    """Results of a classifier on a set of cases.

    Attributes:
        cases: Number of cases.
        groups: Number of resampled patients or lesions. A case without a group counts as one.
        scores: Scores over all classes.
        classes: Metrics of each class.
        bins: Bins of the reliability diagram.
        confusions: Confusion matrix: true class (rows), predicted class (columns). Empty if the
            task is multi-label.
        absent: Classes without cases.
    """

    cases: int
    groups: int
    scores: tuple[ClassScore, ...]
    classes: tuple[ClassRow, ...]
    bins: tuple[CalibrationBin, ...]
    confusions: tuple[tuple[int, ...], ...] = ()
    absent: tuple[str, ...] = field(default=())


def summarize_classes(
    answers: LabeledPredictions, classes: Sequence[str], *, bins: int, bootstrap: int, seed: int
) -> ClassSummary:
    """Summarize the predictions of a classifier.

    The interval is the 2.5th to 97.5th percentile over `bootstrap` resamples. Groups are sampled
    with replacement, each with all of its cases, because cases of one patient are correlated.
    Resamples in which a score is undefined are excluded from its interval.

    Args:
        answers: Predictions for at least one case.
        classes: K class names.
        bins: Bins of the calibration error.
        bootstrap: Number of resamples. 0: no interval.
        seed: Seed of the resampling (numpy's PCG64).
    """
    members, count = _number_groups(answers)
    resampled, resampled_areas = _resample(
        answers, members, count, bins=bins, bootstrap=bootstrap, seed=seed
    )
    rows = _describe_classes(answers, classes, resampled_areas)
    scores = []
    for metric, values in measure_all(answers, bins=bins).items():
        low, high = _interval(resampled.get(metric))
        left_out = _undefined(metric, rows, multi_label=answers.multi_label)
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
        if answers.multi_label
        else tuple(tuple(map(int, row)) for row in count_confusions(answers)),
        absent=tuple(row.class_name for row in rows if row.cases == 0),
    )


def find_score(summary: ClassSummary, metric: str) -> ClassScore:
    """Return the score of a metric.

    Raises:
        KeyError: If the summary does not contain the metric.
    """
    for score in summary.scores:
        if score.metric == metric:
            return score
    raise KeyError(metric)


def _number_groups(answers: LabeledPredictions) -> tuple[np.ndarray, int]:
    """Return the group index of each case, and the number of groups."""
    # Sorted, so that the interval does not depend on the order of the cases.
    keys = [
        (1, group) if group else (0, case_id)
        for case_id, group in zip(answers.case_ids, answers.groups, strict=True)
    ]
    numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
    return np.array([numbers[key] for key in keys]), len(numbers)


def _resample(
    answers: LabeledPredictions,
    members: np.ndarray,
    count: int,
    *,
    bins: int,
    bootstrap: int,
    seed: int,
) -> tuple[dict[str, FloatArray], FloatArray | None]:
    """Return each score (resamples,) and the AUROC of each class (resamples, K)."""
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
    answers: LabeledPredictions, classes: Sequence[str], areas: FloatArray | None
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


def _undefined(metric: str, rows: Sequence[ClassRow], *, multi_label: bool) -> tuple[str, ...]:
    """Return the classes that are excluded from the mean over classes."""
    if metric == "balanced_accuracy":
        # A multi-label task needs cases with the class and cases without it.
        gone = [
            row for row in rows if row.recall is None or (multi_label and row.specificity is None)
        ]
    elif metric in ("auroc", "f1"):
        gone = [row for row in rows if getattr(row, metric) is None]
    else:
        gone = []
    return tuple(row.class_name for row in gone)


def _describe_bins(answers: LabeledPredictions, bins: int) -> tuple[CalibrationBin, ...]:
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

"""Classification metrics of class probabilities, optionally over weighted cases.

Weights serve the bootstrap: a resample is the number of times each case was sampled, and one pass
over a matrix of such counts computes a metric for all resamples. Weights of 1 compute the metric
itself.

A metric that is undefined (the recall of a class without cases) is NaN here and None in results. It
never counts as 0. Means over classes use only the classes for which the metric is defined.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segnetr.metrics.summary import FloatArray

IntArray = npt.NDArray[np.int64]

_TOP = 5
_CUT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabeledPredictions:
    """Predictions of a classifier, with the ground truth.

    Attributes:
        case_ids: N ids.
        probabilities: (N, K). Rows sum to 1 unless the task is multi-label.
        ground_truth: (N, K) of 0 and 1. Each row has exactly one 1 unless the task is multi-label.
        multi_label: Whether the task is multi-label.
        groups: Patient or lesion of each case. An empty string: the case is its own group.
    """

    case_ids: tuple[str, ...]
    probabilities: FloatArray
    ground_truth: IntArray
    multi_label: bool
    groups: tuple[str, ...]

    @property
    def decisions(self) -> IntArray:
        """Predicted classes, (N, K) of 0 and 1: the most probable class, or all of at least 0.5."""
        if self.multi_label:
            return (self.probabilities >= _CUT).astype(np.int64)
        chosen = np.zeros_like(self.ground_truth)
        chosen[np.arange(len(chosen)), self.probabilities.argmax(axis=1)] = 1
        return chosen


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassMeasures:
    """One-vs-rest metrics of each class, (R, K) for R rows of weights. NaN: undefined.

    Attributes:
        recall: True positives / cases of the class (sensitivity).
        specificity: True negatives / cases of other classes.
        precision: True positives / cases predicted as the class.
        f1: Harmonic mean of precision and recall. Undefined if no case has the class.
        auroc: Probability that a case of the class is ranked above a case of another class.
    """

    recall: FloatArray
    specificity: FloatArray
    precision: FloatArray
    f1: FloatArray
    auroc: FloatArray


def measure_classes(
    answers: LabeledPredictions, weights: FloatArray | None = None
) -> ClassMeasures:
    """Compute one-vs-rest metrics of each class.

    Args:
        answers: Predictions for N cases.
        weights: (R, N), not negative. None: one row of ones.
    """
    w = _weights(answers, weights)
    ground_truth = answers.ground_truth.astype(np.float64)
    decisions = answers.decisions.astype(np.float64)
    positives, predicted = w @ ground_truth, w @ decisions
    hits = w @ (ground_truth * decisions)
    total = w.sum(axis=1, keepdims=True)
    false_alarms = predicted - hits
    f1 = _ratio(2 * hits, positives + predicted)
    return ClassMeasures(
        recall=_ratio(hits, positives),
        specificity=_ratio(total - positives - false_alarms, total - positives),
        precision=_ratio(hits, predicted),
        f1=np.where(positives > 0, f1, np.nan),
        auroc=measure_auroc(answers.probabilities, answers.ground_truth, w),
    )


def measure_auroc(scores: FloatArray, ground_truth: IntArray, weights: FloatArray) -> FloatArray:
    """Return the one-vs-rest area under the ROC curve of each class. Ties count one half.

    Args:
        scores: (N, K).
        ground_truth: (N, K) of 0 and 1.
        weights: (R, N).

    Returns:
        (R, K). NaN if all cases, or no cases, have the class.

    Source:
        Mann and Whitney's U: the share of pairs of a positive and a negative in the right order.
    """
    areas = np.empty((len(weights), scores.shape[1]))
    for index in range(scores.shape[1]):
        order = np.argsort(scores[:, index], kind="stable")
        ranked, positive = scores[order, index], ground_truth[order, index].astype(np.float64)
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        ordered = weights[:, order]
        above = np.add.reduceat(ordered * positive, starts, axis=1)
        below = np.add.reduceat(ordered * (1 - positive), starts, axis=1)
        lower = np.cumsum(below, axis=1) - below / 2
        pairs = above.sum(axis=1) * below.sum(axis=1)
        areas[:, index] = _ratio((above * lower).sum(axis=1), pairs)
    return areas


def measure_all(
    answers: LabeledPredictions, *, bins: int, weights: FloatArray | None = None
) -> dict[str, FloatArray]:
    """Compute all metrics that summarize the classes.

    Args:
        answers: Predictions for N cases.
        bins: Bins of the calibration error.
        weights: (R, N), not negative. None: one row of ones.

    Returns:
        Values (R,) by name. Single-label: `accuracy`, `top5_accuracy` (with six or more classes),
        `balanced_accuracy` (mean recall), `auroc`, `f1` (means over classes),
        `calibration_error`. Multi-label: `accuracy` is over all decisions, `exact_match` over
        cases, and `balanced_accuracy` is the mean over classes of recall and specificity.
    """
    w = _weights(answers, weights)
    total = w.sum(axis=1)
    each = measure_classes(answers, w)
    right = answers.decisions == answers.ground_truth
    measures = {"accuracy": _ratio(w @ right.mean(axis=1), total)}
    if answers.multi_label:
        measures["exact_match"] = _ratio(w @ right.all(axis=1).astype(np.float64), total)
        recall = (each.recall + each.specificity) / 2
    else:
        measures["accuracy"] = _ratio(w @ right.all(axis=1).astype(np.float64), total)
        if answers.ground_truth.shape[1] > _TOP:
            measures["top5_accuracy"] = _ratio(w @ _is_among_top(answers), total)
        recall = each.recall
    measures["balanced_accuracy"] = _mean_over_classes(recall)
    measures["auroc"] = _mean_over_classes(each.auroc)
    measures["f1"] = _mean_over_classes(each.f1)
    measures["calibration_error"] = calibrate(answers, bins=bins, weights=w).error
    return measures


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Confidence and observed frequency in each bin, (R, B) for R rows of weights and B bins.

    Attributes:
        edges: (B + 1,) from 0 to 1. A bin contains its upper edge.
        confidence: Mean confidence in a bin. NaN: the bin is empty.
        frequency: Share of correct predictions in a bin. NaN: the bin is empty.
        weight: Cases in a bin (decisions if the task is multi-label).
        error: (R,) expected calibration error: mean gap between confidence and frequency.
    """

    edges: FloatArray
    confidence: FloatArray
    frequency: FloatArray
    weight: FloatArray
    error: FloatArray


def calibrate(
    answers: LabeledPredictions, *, bins: int, weights: FloatArray | None = None
) -> Calibration:
    """Compare confidence with the ground truth in bins of equal width.

    Single-label: the probability of the predicted class, and whether it is correct. Multi-label:
    the probability of each label, and whether the case has it.

    Source:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equations 2 and 3.
    """
    w = _weights(answers, weights)
    if answers.multi_label:
        confidence, true = (
            answers.probabilities.ravel(),
            answers.ground_truth.ravel().astype(np.float64),
        )
        w = np.repeat(w, answers.ground_truth.shape[1], axis=1)
    else:
        confidence = answers.probabilities.max(axis=1)
        true = (answers.decisions == answers.ground_truth).all(axis=1).astype(np.float64)
    indices = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    inside = np.zeros((len(indices), bins))
    inside[np.arange(len(indices)), indices] = 1
    weight = w @ inside
    expected, observed = w @ (inside * confidence[:, None]), w @ (inside * true[:, None])
    return Calibration(
        edges=np.linspace(0, 1, bins + 1),
        confidence=_ratio(expected, weight),
        frequency=_ratio(observed, weight),
        weight=weight,
        error=_ratio(np.abs(expected - observed).sum(axis=1), weight.sum(axis=1)),
    )


def count_confusions(answers: LabeledPredictions) -> IntArray:
    """Return the confusion matrix (K, K): true class (rows), predicted class (columns).

    Raises:
        ValueError: If the task is multi-label.
    """
    if answers.multi_label:
        raise ValueError("cases with several labels have no table of confusions")
    table: IntArray = answers.ground_truth.T @ answers.decisions
    return table


def _weights(answers: LabeledPredictions, weights: FloatArray | None) -> FloatArray:
    return np.ones((1, len(answers.ground_truth))) if weights is None else weights


def _is_among_top(answers: LabeledPredictions) -> FloatArray:
    """Return whether fewer than five classes are more probable than the true one, (N,)."""
    own = (answers.probabilities * answers.ground_truth).sum(axis=1, keepdims=True)
    # Ties go to the lowest class index, as in `decisions`.
    index = np.arange(answers.ground_truth.shape[1])
    earlier = index[None] < answers.ground_truth.argmax(axis=1)[:, None]
    ahead = (answers.probabilities > own) | ((answers.probabilities == own) & earlier)
    found: FloatArray = (ahead.sum(axis=1) < _TOP).astype(np.float64)
    return found


def _mean_over_classes(values: FloatArray) -> FloatArray:
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64))


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return part / whole, NaN where whole is 0."""
    result = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result

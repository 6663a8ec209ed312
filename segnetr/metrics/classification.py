"""How well probabilities of classes fit the ground truth; every measure also over weighted cases.

The weights are what a bootstrap needs: a resample is the number of times each case was drawn, and
one pass over a matrix of such numbers gives the measure of all resamples. With all weights 1 it is
the measure itself.

A measure that the cases do not define (the recall of a class that no case has) is NaN here and
None where it is shown; it is never counted as 0. Means over classes are over those that define it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_TOP = 5
_CUT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What a classifier said about cases, and the ground truth.

    Attributes:
        case_ids: N ids.
        probabilities: (N, K); they sum to 1 over K unless a case has several labels.
        ground_truth: (N, K) of 0 and 1; exactly one 1 a row unless a case has several labels.
        several: A case has any number of labels.
        groups: Patient or lesion of each case; empty text: the case stands alone.
    """

    case_ids: tuple[str, ...]
    probabilities: FloatArray
    ground_truth: IntArray
    several: bool
    groups: tuple[str, ...]

    @property
    def decisions(self) -> IntArray:
        """What is decided, (N, K) of 0 and 1: the most probable class, or each above one half."""
        if self.several:
            return (self.probabilities >= _CUT).astype(np.int64)
        chosen = np.zeros_like(self.ground_truth)
        chosen[np.arange(len(chosen)), self.probabilities.argmax(axis=1)] = 1
        return chosen


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassMeasures:
    """Measures of each class against the rest, (R, K) for R rows of weights; NaN: undefined.

    Attributes:
        recall: Share of the class's cases that are found (sensitivity).
        specificity: Share of the other cases that are not taken for it.
        precision: Share of the cases taken for it that are.
        f1: Harmonic mean of precision and recall; undefined where no case has the class.
        auroc: Probability that a case of the class gets a higher probability than another one.
    """

    recall: FloatArray
    specificity: FloatArray
    precision: FloatArray
    f1: FloatArray
    auroc: FloatArray


def measure_classes(answers: Answers, weights: FloatArray | None = None) -> ClassMeasures:
    """Measure each class against the rest.

    Args:
        answers: N cases.
        weights: (R, N), not negative; None: one row of ones.
    """
    w = _weights(answers, weights)
    ground_truth, said = (
        answers.ground_truth.astype(np.float64),
        answers.decisions.astype(np.float64),
    )
    held, taken, found = w @ ground_truth, w @ said, w @ (ground_truth * said)
    total = w.sum(axis=1, keepdims=True)
    wrongly = taken - found
    f1 = _ratio(2 * found, held + taken)
    return ClassMeasures(
        recall=_ratio(found, held),
        specificity=_ratio(total - held - wrongly, total - held),
        precision=_ratio(found, taken),
        f1=np.where(held > 0, f1, np.nan),
        auroc=measure_auroc(answers.probabilities, answers.ground_truth, w),
    )


def measure_auroc(scores: FloatArray, ground_truth: IntArray, weights: FloatArray) -> FloatArray:
    """Give the area under the ROC curve of each class against the rest; ties count one half.

    Args:
        scores: (N, K).
        ground_truth: (N, K) of 0 and 1.
        weights: (R, N).

    Returns:
        (R, K); NaN where all cases, or none, have the class.

    Source:
        Mann and Whitney's U: the share of pairs of a positive and a negative in the right order.
    """
    areas = np.empty((len(weights), scores.shape[1]))
    for index in range(scores.shape[1]):
        order = np.argsort(scores[:, index], kind="stable")
        ranked, positive = scores[order, index], ground_truth[order, index].astype(np.float64)
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        synthetic = weights[:, order]
        above = np.add.reduceat(synthetic * positive, starts, axis=1)
        below = np.add.reduceat(synthetic * (1 - positive), starts, axis=1)
        lower = np.cumsum(below, axis=1) - below / 2
        pairs = above.sum(axis=1) * below.sum(axis=1)
        areas[:, index] = _ratio((above * lower).sum(axis=1), pairs)
    return areas


def measure_all(
    answers: Answers, *, bins: int, weights: FloatArray | None = None
) -> dict[str, FloatArray]:
    """Measure everything that speaks for all classes together.

    Args:
        answers: N cases.
        bins: Bins of the calibration error.
        weights: (R, N), not negative; None: one row of ones.

    Returns:
        (R,) by name. One label a case: `accuracy`, `top5_accuracy` (from six classes on),
        `balanced_accuracy` (mean recall), `auroc`, `f1` (means over classes),
        `calibration_error`. Several labels: `accuracy` is over all decisions, `exact_match` over
        cases, `balanced_accuracy` the mean over classes of recall and specificity.
    """
    w = _weights(answers, weights)
    total = w.sum(axis=1)
    each = measure_classes(answers, w)
    right = answers.decisions == answers.ground_truth
    measures = {"accuracy": _ratio(w @ right.mean(axis=1), total)}
    if answers.several:
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
    """How often what was said with a confidence is true; (R, B) for R rows of weights, B bins.

    Attributes:
        edges: (B + 1,) from 0 to 1; a bin holds its upper edge.
        confidence: Mean confidence in a bin; NaN: an empty one.
        frequency: Share that is true in a bin; NaN: an empty one.
        weight: Cases in a bin (decisions, where a case has several labels).
        error: (R,) expected calibration error, the mean gap over all cases.
    """

    edges: FloatArray
    confidence: FloatArray
    frequency: FloatArray
    weight: FloatArray
    error: FloatArray


def calibrate(answers: Answers, *, bins: int, weights: FloatArray | None = None) -> Calibration:
    """Compare confidence with ground truth in bins of equal width.

    One label a case: the probability of the chosen class, and whether it is the true one. Several:
    the probability of each label, and whether the case has it.

    Source:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equations 2 and 3.
    """
    w = _weights(answers, weights)
    if answers.several:
        confidence, true = (
            answers.probabilities.ravel(),
            answers.ground_truth.ravel().astype(np.float64),
        )
        w = np.repeat(w, answers.ground_truth.shape[1], axis=1)
    else:
        confidence = answers.probabilities.max(axis=1)
        true = (answers.decisions == answers.ground_truth).all(axis=1).astype(np.float64)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    inside = np.zeros((len(place), bins))
    inside[np.arange(len(place)), place] = 1
    weight = w @ inside
    said, held = w @ (inside * confidence[:, None]), w @ (inside * true[:, None])
    return Calibration(
        edges=np.linspace(0, 1, bins + 1),
        confidence=_ratio(said, weight),
        frequency=_ratio(held, weight),
        weight=weight,
        error=_ratio(np.abs(said - held).sum(axis=1), weight.sum(axis=1)),
    )


def count_confusions(answers: Answers) -> IntArray:
    """Count cases by true class (rows) and decided class (columns), (K, K).

    Raises:
        ValueError: If a case has several labels; there is no such table then.
    """
    if answers.several:
        raise ValueError("cases with several labels have no table of confusions")
    table: IntArray = answers.ground_truth.T @ answers.decisions
    return table


def _weights(answers: Answers, weights: FloatArray | None) -> FloatArray:
    return np.ones((1, len(answers.ground_truth))) if weights is None else weights


def _is_among_top(answers: Answers) -> FloatArray:
    """Say whether fewer than five classes are more probable than the true one, (N,)."""
    own = (answers.probabilities * answers.ground_truth).sum(axis=1, keepdims=True)
    # Of equal ones the first counts as the more probable, as for the decision itself.
    index = np.arange(answers.ground_truth.shape[1])
    earlier = index[None] < answers.ground_truth.argmax(axis=1)[:, None]
    ahead = (answers.probabilities > own) | ((answers.probabilities == own) & earlier)
    found: FloatArray = (ahead.sum(axis=1) < _TOP).astype(np.float64)
    return found


def _mean_over_classes(values: FloatArray) -> FloatArray:
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64))


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Divide, NaN where there is nothing to divide by."""
    result = np.full(np.broadcast(part, whole).shape, np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result

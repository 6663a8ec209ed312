"""Test classification scores against worked examples and brute-force counting of pairs."""

import itertools
import math

import numpy as np
import pytest

from segnetr.metrics.classification import (
    LabeledPredictions,
    calibrate,
    count_confusions,
    measure_all,
    measure_auroc,
    measure_classes,
)
from segnetr.metrics.classification_summary import find_score, summarize_classes


def make(probabilities, ground_truth, *, multi_label=False, groups=None) -> LabeledPredictions:
    table = np.asarray(probabilities, dtype=np.float64)
    ground_truth = np.asarray(ground_truth)
    if ground_truth.ndim == 1:
        ground_truth = np.eye(table.shape[1], dtype=np.int64)[ground_truth]
    return LabeledPredictions(
        case_ids=tuple(f"c{i:04}" for i in range(len(table))),
        probabilities=table,
        ground_truth=ground_truth.astype(np.int64),
        multi_label=multi_label,
        groups=tuple(groups or [""] * len(table)),
    )


def draw(count: int, classes: int, *, seed: int, coarse: bool = False) -> LabeledPredictions:
    generator = np.random.default_rng(seed)
    ground_truth = generator.integers(0, classes, count)
    scores = generator.random((count, classes)) + 0.7 * np.eye(classes)[ground_truth]
    if coarse:  # many ties
        scores = np.round(scores * 4) / 4 + 0.25
    return make(scores / scores.sum(axis=1, keepdims=True), ground_truth)


def count_pairs(scores, positive) -> float:
    pairs = list(itertools.product(scores[positive == 1], scores[positive == 0]))
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


@pytest.mark.parametrize("coarse", [False, True])
def test_auroc_equals_the_pair_count_with_ties_as_one_half(coarse):
    predictions = draw(60, 3, seed=1, coarse=coarse)
    areas = measure_classes(predictions).auroc[0]
    for index in range(3):
        expected = count_pairs(
            predictions.probabilities[:, index], predictions.ground_truth[:, index]
        )
        assert areas[index] == pytest.approx(expected, abs=1e-12)


def test_weighted_scores_equal_those_of_repeated_cases():
    predictions = draw(40, 4, seed=2, coarse=True)
    times = np.random.default_rng(3).integers(0, 4, 40)
    rows = np.repeat(np.arange(40), times)
    repeated = make(predictions.probabilities[rows], predictions.ground_truth[rows])
    weighted = measure_all(predictions, bins=7, weights=times[None].astype(float))
    for name, value in measure_all(repeated, bins=7).items():
        assert weighted[name][0] == pytest.approx(value[0], abs=1e-12), name


def test_scores_of_three_classes_match_a_worked_example():
    ground_truth = [0, 0, 0, 1, 1, 2]
    predicted = [0, 0, 1, 1, 2, 2]
    predictions = make(np.eye(3)[predicted] * 0.7 + 0.1, ground_truth)
    measures = measure_all(predictions, bins=10)
    assert measures["accuracy"][0] == pytest.approx(4 / 6)
    assert measures["balanced_accuracy"][0] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    # F1: 2*2/(3+2), 2*1/(2+2), 2*1/(1+2)
    assert measures["f1"][0] == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)
    each = measure_classes(predictions)
    assert each.precision[0].tolist() == pytest.approx([1, 1 / 2, 1 / 2])
    assert each.specificity[0].tolist() == pytest.approx([1, 3 / 4, 4 / 5])
    assert count_confusions(predictions).tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    # All predictions have probability 0.8 and two thirds of them are correct.
    assert measures["calibration_error"][0] == pytest.approx(0.8 - 4 / 6)


def test_scores_of_an_absent_class_are_undefined_and_excluded_from_means():
    predictions = make([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]], [0, 1, 1])
    summary = summarize_classes(predictions, ["a", "b", "c"], bins=5, bootstrap=50, seed=0)
    assert summary.absent == ("c",)
    row = summary.classes[2]
    assert (row.cases, row.decided, row.recall, row.f1, row.auroc) == (0, 1, None, None, None)
    assert row.auroc_low is None
    assert find_score(summary, "balanced_accuracy").value == pytest.approx((1 + 1 / 2) / 2)
    assert find_score(summary, "auroc").left_out == ("c",)
    assert find_score(summary, "accuracy").left_out == ()


def test_split_with_a_single_class_has_no_auroc_and_lists_the_classes_left_out():
    summary = summarize_classes(
        make([[0.6, 0.4], [0.3, 0.7]], [0, 0]), ["a", "b"], bins=5, bootstrap=20, seed=0
    )
    assert find_score(summary, "auroc").value is None
    assert find_score(summary, "auroc").left_out == ("a", "b")
    assert find_score(summary, "accuracy").value == 0.5


def test_top_five_accuracy_breaks_ties_by_the_lowest_class_index():
    table = np.tile(np.linspace(0.3, 0.1, 8), (8, 1))
    predictions = make(table, range(8))
    assert measure_all(predictions, bins=5)["top5_accuracy"][0] == 5 / 8
    equal = make(np.full((8, 8), 1 / 8), range(8))
    assert measure_all(equal, bins=5)["top5_accuracy"][0] == 5 / 8
    assert "top5_accuracy" not in measure_all(draw(10, 5, seed=0), bins=5)


def test_multilabel_predictions_are_scored_per_label():
    ground_truth = [[1, 0], [1, 1], [0, 0], [0, 1]]
    predictions = make(
        [[0.9, 0.2], [0.5, 0.4], [0.1, 0.6], [0.2, 0.9]], ground_truth, multi_label=True
    )
    measures = measure_all(predictions, bins=4)
    assert measures["accuracy"][0] == 6 / 8
    assert measures["exact_match"][0] == 2 / 4
    assert measures["balanced_accuracy"][0] == pytest.approx((1 + 1 / 2) / 2)
    assert measures["auroc"][0] == pytest.approx((1 + 3 / 4) / 2)
    with pytest.raises(ValueError, match="several labels"):
        count_confusions(predictions)


def test_calibration_bins_include_their_upper_edge_and_ece_is_the_mean_gap():
    predictions = make([[0.75, 0.25], [0.5, 0.5], [1.0, 0.0], [0.8, 0.2]], [0, 1, 0, 1])
    found = calibrate(predictions, bins=4)
    assert found.weight[0].tolist() == [0, 1, 1, 2]
    assert found.frequency[0, 1:].tolist() == [0, 1, 0.5]
    assert math.isnan(found.confidence[0, 0])
    assert found.error[0] == pytest.approx((0.5 + 0.25 + 2 * 0.4) / 4)


def test_perfect_predictions_have_perfect_scores():
    predictions = make(np.eye(6)[[0, 1, 2, 3, 4, 5]], range(6))
    measures = measure_all(predictions, bins=15)
    assert measures.pop("calibration_error")[0] == 0
    assert all(value[0] == 1 for value in measures.values())


def test_interval_is_independent_of_case_order_and_contains_the_value():
    predictions = draw(80, 3, seed=5)
    order = np.random.default_rng(0).permutation(80)
    shuffled = LabeledPredictions(
        case_ids=tuple(predictions.case_ids[i] for i in order),
        probabilities=predictions.probabilities[order],
        ground_truth=predictions.ground_truth[order],
        multi_label=False,
        groups=tuple(predictions.groups[i] for i in order),
    )
    names = ["a", "b", "c"]
    one, other = (
        summarize_classes(a, names, bins=10, bootstrap=200, seed=7) for a in (predictions, shuffled)
    )
    for first, second in zip(one.scores, other.scores, strict=True):
        assert first.value == pytest.approx(second.value)
        assert (first.low, first.high) == pytest.approx((second.low, second.high))
        if first.metric != "calibration_error":
            assert first.low <= first.value <= first.high


def test_cases_of_one_group_are_resampled_as_one_unit():
    # Ten groups of twenty equal cases have the interval of ten cases, not of two hundred.
    right = np.repeat([1, 1, 1, 1, 1, 1, 1, 0, 0, 0], 20)
    table = np.where(right[:, None] == 1, [[0.8, 0.2]], [[0.2, 0.8]])
    groups = [f"p{i // 20}" for i in range(200)]
    widths = []
    for chosen in (groups, None):
        summary = summarize_classes(
            make(table, [0] * 200, groups=chosen), ["a", "b"], bins=5, bootstrap=400, seed=0
        )
        score = find_score(summary, "accuracy")
        widths.append(score.high - score.low)
    assert widths[0] > 3 * widths[1]


def test_zero_resamples_give_no_interval():
    summary = summarize_classes(draw(9, 3, seed=0), ["a", "b", "c"], bins=5, bootstrap=0, seed=0)
    assert all(score.low is None for score in summary.scores)


def test_all_scores_equal_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    predictions = draw(200, 7, seed=9, coarse=True)
    ground_truth, predicted = (
        predictions.ground_truth.argmax(1),
        predictions.probabilities.argmax(1),
    )
    found = measure_all(predictions, bins=10)
    assert found["balanced_accuracy"][0] == pytest.approx(
        metrics.balanced_accuracy_score(ground_truth, predicted)
    )
    assert found["f1"][0] == pytest.approx(
        metrics.f1_score(ground_truth, predicted, average="macro")
    )
    assert found["auroc"][0] == pytest.approx(
        metrics.roc_auc_score(predictions.ground_truth, predictions.probabilities, average="macro")
    )


def test_auroc_with_several_rows_of_weights_equals_row_by_row_computation():
    predictions = draw(30, 2, seed=4, coarse=True)
    weights = np.random.default_rng(0).integers(0, 3, (5, 30)).astype(float)
    whole = measure_auroc(predictions.probabilities, predictions.ground_truth, weights)
    single = [
        measure_auroc(predictions.probabilities, predictions.ground_truth, row[None])[0]
        for row in weights
    ]
    assert np.array_equal(whole, np.stack(single))

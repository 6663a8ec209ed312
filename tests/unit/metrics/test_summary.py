import math
import random

import numpy as np
import pytest

from segnetr.metrics import Score, score_masks, select_summary, summarize

LESION = ("background", "lesion")
ORGANS = ("background", "left", "right")


def disk(radius, *, side=40, value=1):
    rows, columns = np.ogrid[:side, :side]
    inside = (rows - side / 2) ** 2 + (columns - side / 2) ** 2 < radius**2
    return (inside * value).astype(np.uint8)


def score_radii(radii, *, classes=LESION):
    """Score one case for each pair of radii (prediction, ground truth)."""
    return [
        score
        for number, (found, true) in enumerate(radii)
        for score in score_masks(disk(found), disk(true), classes=classes, case_id=f"case{number}")
    ]


def by_name(summaries):
    return {(row.class_name, row.metric): row for row in summaries}


def scores_of(values, *, metric="dice", class_name="lesion"):
    """Return scores of cases with given values of one metric and no missed structure."""
    counts = {"ground_truth_pixels": 10.0, "predicted_pixels": 10.0, "shared_pixels": 5.0}
    return [
        Score(case_id=case, class_name=class_name, metric=name, value=number)
        for case, value in values.items()
        for name, number in {metric: value, **counts}.items()
    ]


def test_summary_has_mean_standard_deviation_and_median():
    row = select_summary(summarize(scores_of({"a": 0.2, "b": 0.4, "c": 0.9})), "dice")
    assert row.mean == pytest.approx(0.5)
    assert row.std == pytest.approx(math.sqrt((0.3**2 + 0.1**2 + 0.4**2) / 2))
    assert row.median == 0.4
    assert row.low <= row.mean <= row.high
    assert (row.cases, row.missed, row.false_alarms, row.both_empty, row.undefined) == (3,) + (
        0,
    ) * 4


def test_missed_structures_false_positives_and_empty_pairs_are_counted():
    rows = by_name(summarize(score_radii([(5, 5), (0, 5), (0, 6), (5, 0), (0, 0), (0, 0), (0, 0)])))
    for metric in ("dice", "hd95_px", "dice_pooled"):
        row = rows["lesion", metric]
        assert (row.cases, row.missed, row.false_alarms, row.both_empty) == (7, 2, 1, 3)
    assert rows["lesion", "dice"].undefined == 0
    assert rows["lesion", "hd95_px"].undefined == 3
    assert rows["lesion", "dice"].mean == pytest.approx(4 / 7)
    assert rows["lesion", "hd95_px"].mean == pytest.approx(3 * math.hypot(40, 40) / 4)


def test_mean_distance_grows_with_every_missed_structure():
    means = [
        by_name(summarize(score_radii([(0, 9)] * missed + [(8, 9)] * (10 - missed))))[
            "lesion", "hd95_px"
        ].mean
        for missed in range(11)
    ]
    assert means == sorted(set(means))


def test_metric_that_is_undefined_for_all_cases_has_no_mean():
    row = by_name(summarize(score_radii([(0, 0), (0, 0)])))["lesion", "hd95_px"]
    assert (row.mean, row.std, row.median, row.low, row.high) == (None,) * 5
    assert (row.cases, row.undefined) == (2, 2)


def test_pooled_dice_sums_pixels_over_cases_first():
    scores = score_radii([(5, 15), (15, 15)])
    small, large = np.count_nonzero(disk(5)), np.count_nonzero(disk(15))
    row = by_name(summarize(scores))["lesion", "dice_pooled"]
    assert row.mean == pytest.approx(2 * (small + large) / (small + 3 * large))
    assert row.std is None
    assert row.median is None
    assert row.mean != pytest.approx(by_name(summarize(scores))["lesion", "dice"].mean)


def test_pooled_dice_of_empty_masks_is_one():
    row = by_name(summarize(score_radii([(0, 0), (0, 0)])))["lesion", "dice_pooled"]
    assert (row.mean, row.low, row.high) == (1.0, 1.0, 1.0)


def test_summary_is_independent_of_the_order_and_grouping_of_cases():
    scores = score_radii([(radius, 10) for radius in range(12)])
    shuffled = scores.copy()
    random.Random(3).shuffle(shuffled)
    assert by_name(summarize(shuffled)) == by_name(summarize(scores))


def test_interval_is_reproducible_and_depends_on_the_seed():
    scores = score_radii([(radius, 10) for radius in range(12)])
    first, again, other = (
        select_summary(summarize(scores, seed=seed), "dice") for seed in (0, 0, 1)
    )
    assert (first.low, first.high) == (again.low, again.high)
    assert (first.low, first.high) != (other.low, other.high)
    assert first.mean == other.mean


def test_coverage_of_the_interval_is_close_to_its_nominal_level():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        values = generator.normal(0.5, 0.1, size=40)
        cases = {f"c{number}": float(value) for number, value in enumerate(values)}
        row = select_summary(summarize(scores_of(cases), bootstrap=400), "dice")
        covered += row.low <= 0.5 <= row.high
    assert 0.90 <= covered / 200 <= 0.98


def test_cases_of_one_patient_are_resampled_as_one_unit():
    values = {f"p{number // 10}-{number}": 0.4 + 0.2 * (number // 10 % 2) for number in range(60)}
    patients = {case: case.split("-")[0] for case in values}
    alone = select_summary(summarize(scores_of(values)), "dice")
    grouped = select_summary(summarize(scores_of(values), patients=patients), "dice")
    assert grouped.mean == alone.mean
    # Ten equal cases per patient: six samples instead of sixty, so sqrt(10) times as wide.
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_one_patient_gives_no_interval():
    scores = scores_of({"a": 0.2, "b": 0.4})
    row = select_summary(summarize(scores, patients={"a": "p", "b": "p"}), "dice")
    assert (row.low, row.high) == (None, None)
    assert select_summary(summarize(scores_of({"a": 0.2})), "dice").std is None


def test_zero_resamples_give_no_interval():
    row = select_summary(summarize(scores_of({"a": 0.2, "b": 0.4}), bootstrap=0), "dice")
    assert (row.mean, row.low) == (pytest.approx(0.3), None)


def test_case_without_patient_is_separate_from_a_patient_of_its_name():
    scores = scores_of({"a": 0.0, "b": 1.0})
    row = select_summary(summarize(scores, patients={"a": "b"}), "dice")
    assert row.low is not None


def test_large_sets_are_resampled_in_chunks_with_the_correct_variance():
    values = {f"c{number}": float(number % 2) for number in range(5000)}
    row = select_summary(summarize(scores_of(values), bootstrap=1000), "dice")
    assert row.high - row.low == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(5000), rel=0.1)


def test_mean_rows_average_the_classes_of_each_case():
    ground_truth, prediction = disk(8), disk(8)
    ground_truth[:4, :4] = 2
    scores = score_masks(prediction, ground_truth, classes=ORGANS, case_id="a")
    scores += score_masks(disk(8), disk(8), classes=ORGANS, case_id="b")
    rows = by_name(summarize(scores))
    assert rows["mean", "dice"].mean == pytest.approx((0.5 + 1.0) / 2)
    # Case a: left 0, right missed; case b: left 0, right undefined in both masks.
    assert rows["mean", "hd95_px"].mean == pytest.approx((math.hypot(40, 40) / 2 + 0) / 2)
    assert (rows["mean", "dice"].missed, rows["mean", "dice"].both_empty) == (1, 1)
    assert ("mean", "dice_pooled") not in rows
    assert select_summary(list(rows.values()), "dice").class_name == "mean"


def test_single_class_has_no_mean_row():
    summaries = summarize(score_radii([(5, 5), (6, 5)]))
    assert {row.class_name for row in summaries} == {"lesion"}
    assert select_summary(summaries, "dice").class_name == "lesion"
    with pytest.raises(KeyError, match="sensitivity"):
        select_summary(summaries, "sensitivity")


def test_case_that_is_scored_twice_is_rejected():
    with pytest.raises(ValueError, match="'case0' was scored twice"):
        summarize(score_radii([(5, 5)]) * 2)


def test_no_scores_give_no_summary():
    assert summarize([]) == []

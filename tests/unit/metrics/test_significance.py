"""Test paired comparisons against worked examples, definitions and simulations."""

import itertools

import numpy as np
import pytest
from scipy import stats

from segnetr.metrics import Score
from segnetr.metrics.case_values import pair_cases, tabulate_cases
from segnetr.metrics.significance import correct_holm, measure_difference
from segnetr.outputs.tables.comparison import ComparisonRow


def by_case(values):
    return {f"c{number:03d}": float(value) for number, value in enumerate(values)}


def exact_p(gaps):
    """Compute the signed-rank p value by definition: all signs are equally probable."""
    ranks = stats.rankdata(np.abs(gaps))
    observed = abs(ranks[np.array(gaps) > 0].sum() - ranks.sum() / 2)
    sums = [
        abs(sum(r for r, s in zip(ranks, signs, strict=True) if s) - ranks.sum() / 2)
        for signs in itertools.product((0, 1), repeat=len(gaps))
    ]
    return np.mean(np.array(sums) >= observed - 1e-9)


def test_identical_runs_have_no_difference():
    values = by_case([0.5, 0.7, 0.9, 0.2])
    found = measure_difference(values, values)
    assert found.is_identical
    assert (found.difference.mean, found.difference.low, found.difference.high) == (0, 0, 0)
    assert (found.effect, found.p_value) == (0, 1)
    assert (found.higher, found.lower, found.equal) == (0, 0, 4)


def test_p_value_and_effect_size_match_their_definitions():
    gaps = [0.05, -0.01, 0.02, 0.08, 0.03, -0.04, 0.07, 0.0]
    found = measure_difference(by_case([0.5] * 8), by_case([0.5 + gap for gap in gaps]))
    moved = [round(gap, 10) for gap in gaps if gap]
    assert found.p_value == pytest.approx(exact_p(moved), abs=1e-9)
    # 0.01 to 0.08 without 0.06 have the ranks 1 to 7, and the negative ones are 1 and 4.
    assert found.effect == pytest.approx((28 - 2 * 5) / 28)
    assert (found.higher, found.lower, found.equal) == (5, 2, 1)
    assert found.difference.mean == pytest.approx(sum(gaps) / 8)


def test_effect_size_is_maximal_if_all_cases_improve_by_the_same_amount():
    found = measure_difference(by_case([0.5] * 10), by_case([0.75] * 10))
    assert found.effect == 1.0
    assert found.difference.low == found.difference.high == 0.25
    assert found.p_value < 0.01


@pytest.mark.slow
def test_cases_of_one_patient_are_one_unit_of_the_signed_rank_test():
    first, second = by_case([0.5] * 12), by_case([0.6] * 12)
    alone = measure_difference(first, second)
    patients = {case: f"p{number // 6}" for number, case in enumerate(first)}
    grouped = measure_difference(first, second, patients=patients)
    assert (alone.patients, grouped.patients) == (12, 2)
    assert alone.p_value < 0.001
    assert grouped.p_value == pytest.approx(0.5)  # two patients: 2 of 4 sign patterns


def test_false_positive_rate_is_close_to_the_significance_level():
    generator = np.random.default_rng(3)
    alarms = 0
    for _ in range(400):
        first, second = generator.normal(0.8, 0.1, (2, 20))
        found = measure_difference(by_case(first), by_case(second), bootstrap=0)
        alarms += found.p_value < 0.05
    assert 8 <= alarms <= 34  # 20 are expected, and both limits are three standard deviations away


def test_holm_correction_matches_a_worked_example():
    # Sorted 0.01, 0.02, 0.03, 0.5 with factors 4, 3, 2, 1, made non-decreasing.
    assert correct_holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert correct_holm([0.4]) == [0.4]
    assert correct_holm([0.9, 0.9]) == [1.0, 1.0]
    assert correct_holm([]) == []


def table(values, *, metric="hd95_mm"):
    return tabulate_cases(
        Score(case_id=case, class_name=name, metric=metric, value=value)
        for name, cases in values.items()
        for case, value in cases.items()
    )


def test_false_positive_counts_against_a_correct_empty_mask():
    first = table({"a": {"1": None, "2": None, "3": 4.0}})
    second = table({"a": {"1": 50.0, "2": None, "3": 5.0}})
    ours, theirs = pair_cases(first, second, metric="hd95_mm")["a"]
    assert ours == {"1": 0.0, "3": 4.0}
    assert theirs == {"1": 50.0, "3": 5.0}
    shares = pair_cases(
        table({"a": {"1": None}}, metric="nsd_2mm"),
        table({"a": {"1": 0.0}}, metric="nsd_2mm"),
        metric="nsd_2mm",
    )["a"]
    assert shares == ({"1": 1.0}, {"1": 0.0})


def test_mean_over_classes_uses_the_same_classes_for_both_runs():
    first = table({"a": {"1": 0.5}, "b": {"1": None}}, metric="dice")
    second = table({"a": {"1": 0.7}, "b": {"1": None}}, metric="dice")
    assert pair_cases(first, second, metric="dice")["mean"] == ({"1": 0.5}, {"1": 0.7})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "winner"), [("assd_mm", "small"), ("hd95_px", "small"), ("nsd_2mm", "large")]
)
def test_better_run_has_the_smaller_distance_or_the_larger_overlap(metric, winner):
    cases = [f"c{number}" for number in range(12)]
    small = table({"a": dict.fromkeys(cases, 0.2)}, metric=metric)
    large = table({"a": dict.fromkeys(cases, 0.8)}, metric=metric)
    first, second = pair_cases(small, large, metric=metric)["a"]
    row = ComparisonRow(
        first="small",
        second="large",
        class_name="a",
        metric=metric,
        result=measure_difference(first, second),
        p_corrected=0.001,
    )
    assert row.verdict == f"{winner} is better"
    assert (row.better, row.worse) == ((0, 12) if winner == "small" else (12, 0))


def test_correct_empty_mask_counts_as_distance_zero_against_a_false_positive():
    first = table({"a": {"1": None, "2": 4.0}}, metric="assd_px")
    second = table({"a": {"1": 50.0, "2": 5.0}}, metric="assd_px")
    ours, _ = pair_cases(first, second, metric="assd_px")["a"]
    assert ours == {"1": 0.0, "2": 4.0}

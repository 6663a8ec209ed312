"""The pure statistics under predicted Dice: temperature, ranks, intervals, regression, distance."""

import numpy as np
import pytest
from scipy import stats

from segnetr.engine.quality.conformal import choose_level, find_radius
from segnetr.engine.quality.dice_regression import fit_dice_regression
from segnetr.engine.quality.ood import find_limit, fit_detector, measure_left_out
from segnetr.engine.quality.rank_correlation import correlate_ranks
from segnetr.engine.quality.temperature import fit_temperature, scale_probabilities


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_of_an_overconfident_network_is_found(temperature):
    source = np.random.default_rng(1)
    logits = source.normal(size=(20_000, 3)) * 1.5
    ground_truth = (softmax(logits).cumsum(axis=1) > source.random((len(logits), 1))).argmax(axis=1)
    said = softmax(logits * temperature)  # as sure as if the logits were so many times larger
    assert fit_temperature(said, ground_truth) == pytest.approx(temperature, rel=0.05)
    # What is taken for one in a million becomes one in a hundred at a temperature of 3.
    assert np.allclose(scale_probabilities(said, temperature), softmax(logits), atol=0.02)


def test_temperature_respects_the_weights_of_pixels():
    said = np.array([[0.1, 0.9]] * 100 + [[0.1, 0.9]] * 100)
    ground_truth = np.array([1] * 99 + [0] + [1] * 60 + [0] * 40)
    sure = fit_temperature(said, ground_truth, weights=np.repeat([1.0, 1e-9], 100))
    unsure = fit_temperature(said, ground_truth, weights=np.repeat([1e-9, 1.0], 100))
    assert sure < 1 < unsure


def test_temperature_without_pixels_is_an_error():
    with pytest.raises(ValueError, match="at least one pixel"):
        fit_temperature(np.zeros((0, 2)), np.zeros(0, dtype=int))


def test_rank_correlation_is_spearmans_with_ties():
    source = np.random.default_rng(2)
    first = source.integers(0, 6, 40).tolist()
    second = (np.array(first) + source.normal(size=40)).tolist()
    expected = stats.spearmanr(first, second).statistic
    assert correlate_ranks(first, second) == pytest.approx(expected)


def test_rank_correlation_of_equal_values_or_two_cases_is_undefined():
    assert correlate_ranks([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert correlate_ranks([1.0, 2.0], [1.0, 2.0]) is None


def test_interval_level_depends_on_the_number_of_cases():
    assert [choose_level(cases) for cases in (3, 4, 8, 9, 200)] == [None, 0.8, 0.8, 0.9, 0.9]
    assert find_radius([0.3, 0.1, 0.2, 0.9], 0.8) == 0.9
    assert find_radius(np.arange(19.0).tolist(), 0.9) == 17
    with pytest.raises(ValueError, match="3 errors are too few"):
        find_radius([0.1, 0.2, 0.3], 0.8)


@pytest.mark.parametrize("cases", [9, 40])
def test_interval_covers_the_next_case_at_its_level(cases):
    source = np.random.default_rng(cases)
    held = []
    for _ in range(2000):
        errors = np.abs(source.standard_t(3, size=cases + 1))
        held.append(errors[-1] <= find_radius(errors[:-1].tolist(), 0.9))
    assert 0.88 <= np.mean(held) <= 0.95


def make_cases(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of which the second knows what the expected Dice does not."""
    source = np.random.default_rng(seed)
    features = source.random((count, 3)) * [0.3, 1.0, 1.0] + [0.6, 0.0, 0.0]
    return features, np.clip(features[:, 0] - 0.4 * features[:, 1] + 0.1, 0, 1)


def test_regression_corrects_the_expected_dice():
    features, dice = make_cases(60)
    fit, left_out = fit_dice_regression(features, dice, groups=[str(n) for n in range(60)])
    assert np.abs(left_out - dice).mean() < 0.02
    fresh, ground_truth = make_cases(30, seed=9)
    assert np.abs(fit.predict(fresh) - ground_truth).mean() < 0.02


def test_regression_on_few_noisy_cases_keeps_the_expected_dice():
    source = np.random.default_rng(3)
    features = source.random((6, 5))
    dice = np.clip(features[:, 0] - 0.2 + 0.02 * source.normal(size=6), 0, 1)
    fit, _ = fit_dice_regression(features, dice, groups=list("abcdef"))
    order = correlate_ranks(fit.predict(features).tolist(), features[:, 0].tolist())
    assert order is not None
    assert order > 0.9


def test_left_out_prediction_does_not_depend_on_the_ground_truth_of_its_patient():
    features, dice = make_cases(12)
    groups = [f"p{n // 2}" for n in range(12)]
    _, before = fit_dice_regression(features, dice, groups=groups)
    changed = dice.copy()
    changed[[2, 3]] -= 1e-4  # too little to choose another penalty
    _, after = fit_dice_regression(features, changed, groups=groups)
    assert np.array_equal(before[[2, 3]], after[[2, 3]])
    assert not np.allclose(np.delete(before, [2, 3]), np.delete(after, [2, 3]), atol=1e-9)


def test_constant_feature_does_not_change_a_prediction():
    features, dice = make_cases(10)
    features[:, 2] = 0.5
    fit, _ = fit_dice_regression(features, dice, groups=[str(n) for n in range(10)])
    strange = features[:1].copy()
    strange[0, 2] = 1e6
    assert fit.predict(strange) == fit.predict(features[:1])


def test_regression_needs_two_patients():
    features, dice = make_cases(3)
    with pytest.raises(ValueError, match="two groups"):
        fit_dice_regression(features, dice, groups=["a", "a", "a"])


def test_distance_from_many_cases_is_mahalanobis():
    source = np.random.default_rng(4)
    mixing = source.normal(size=(4, 4))
    points = source.normal(size=(20_000, 4)) @ mixing + 5
    probe = source.normal(size=(50, 4)) * 3 + 5
    inverse = np.linalg.inv(np.cov(points.T))
    away = probe - points.mean(axis=0)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", away, inverse, away) / 4)
    assert np.allclose(fit_detector(points).measure(probe), expected, rtol=0.02)


def test_density_of_few_cases_with_many_numbers_recognizes_similar_cases():
    source = np.random.default_rng(5)
    axes = source.normal(size=(5, 300))
    draw = lambda count: source.normal(size=(count, 5)) @ axes + source.normal(size=(count, 300))  # noqa: E731
    cloud = fit_detector(draw(20))
    limit = find_limit(cloud.measure(draw(15)).tolist())
    assert (cloud.measure(draw(200)) <= limit).mean() > 0.95
    assert (cloud.measure(draw(20) + 8 * source.normal(size=300)) > limit).all()


def test_density_of_equal_cases_gives_finite_distances():
    cloud = fit_detector(np.ones((6, 3)))
    assert np.isfinite(cloud.measure(np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 1.0]]))).all()
    assert cloud.measure(np.array([[2.0, 1.0, 1.0]])) > 10


def test_limit_is_wide_for_few_cases():
    distances = np.exp(np.random.default_rng(6).normal(size=400) * 0.2)
    assert find_limit(distances.tolist()) == pytest.approx(np.exp(0.2 * 2.33), rel=0.1)
    assert find_limit(distances[:4].tolist()) > 1.3 * find_limit(distances.tolist())
    with pytest.raises(ValueError, match="two distances"):
        find_limit([1.0])


def test_left_out_distance_is_that_from_the_points_of_other_patients():
    points = np.random.default_rng(8).normal(size=(9, 3))
    groups = ["a", "a", *"bcdefgh"]
    found = measure_left_out(points, groups=groups)
    assert found[:2] == pytest.approx(fit_detector(points[2:]).measure(points[:2]).tolist())
    assert found[8] == pytest.approx(fit_detector(points[:8]).measure(points[8:])[0])
    assert measure_left_out(points, groups=["a"] * 9) == []

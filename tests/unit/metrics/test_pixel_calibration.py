"""Test pixel calibration: a calibrated network is on the diagonal."""

import numpy as np
import pytest

from segnetr.errors import ReadError
from segnetr.metrics.pixel_calibration import CasePixels, PixelCounter, unite_reliabilities
from segnetr.outputs.tables.reliability import read_reliability, write_reliability


def count(*cases):
    counter = PixelCounter()
    for probabilities, ground_truth in cases:
        pixels = CasePixels(ground_truth.size)
        pixels.add(0, 1 - probabilities.astype(np.float32), ground_truth.astype(np.uint8))
        pixels.add(1, probabilities.astype(np.float32), ground_truth.astype(np.uint8))
        counter.add(pixels)
    return counter.result()


def test_calibrated_network_has_zero_ece_and_overconfident_one_does_not():
    rng = np.random.default_rng(0)
    probabilities = rng.random((300, 300))
    calibrated = count((probabilities, rng.random(probabilities.shape) < probabilities))
    assert calibrated.error < 0.02
    for found in calibrated.bins:
        assert found.frequency == pytest.approx(found.confidence, abs=0.03)
    overconfident = count((np.full((50, 50), 0.95), np.eye(50)))
    assert overconfident.error == pytest.approx(0.95 - 0.02, abs=1e-6)


def test_small_image_has_the_same_weight_as_a_large_one():
    large = (np.full((400, 400), 0.25), np.zeros((400, 400)))
    small = (np.full((4, 4), 0.25), np.ones((4, 4)))
    assert count(large, small).bins[2].frequency == pytest.approx(0.5)


def test_counts_of_a_large_case_do_not_depend_on_its_chunks():
    rng = np.random.default_rng(2)
    probabilities = rng.random((1300, 2100), dtype=np.float32)  # every third pixel is counted
    ground_truth = (rng.random(probabilities.shape) < probabilities**2).astype(np.uint8)
    tables = []
    for height in (1300, 700, 64, 1):
        pixels = CasePixels(probabilities.size)
        for top in range(0, 1300, height):
            rows = slice(top, top + height)
            pixels.add(1, probabilities[rows], ground_truth[rows], start=top * 2100)
        tables.append(pixels.table)
    assert tables[0][0].sum() == pytest.approx(1, rel=1e-12)
    for table in tables[1:]:
        np.testing.assert_allclose(table, tables[0], rtol=1e-6)


def test_easy_background_does_not_hide_an_overconfident_network():
    ground_truth = np.zeros((100, 100))
    ground_truth[:4] = 1
    probabilities = np.where(np.arange(10_000).reshape(100, 100) < 800, 0.95, 0.001)
    found = count((probabilities, ground_truth))
    assert found.error == pytest.approx((800 * 0.45 + 9200 * 0.001) / 10_000, abs=1e-6)
    assert found.error_above_first == pytest.approx(0.45, abs=1e-6)
    sure = count((np.full((9, 9), 0.01), np.zeros((9, 9))))
    assert sure.error_above_first is None


def test_merged_counts_equal_the_counts_of_all_cases():
    rng = np.random.default_rng(3)
    cases = [
        (probabilities := rng.random((20, 30)), rng.random(probabilities.shape) < probabilities**n)
        for n in (1, 2, 3)
    ]
    whole = count(*cases)
    parts = unite_reliabilities([count(cases[0]), None, count(*cases[1:])])
    assert parts.cases == 3
    assert parts.error == pytest.approx(whole.error, abs=1e-5)
    for ours, theirs in zip(parts.bins, whole.bins, strict=True):
        assert ours.count == pytest.approx(theirs.count, abs=2)
        assert ours.confidence == pytest.approx(theirs.confidence, rel=1e-5)
        assert ours.frequency == pytest.approx(theirs.frequency, rel=1e-5)
    assert unite_reliabilities([None]) is None


def test_probability_of_one_is_counted_in_the_last_bin():
    found = count((np.ones((3, 3)), np.ones((3, 3))))
    assert found.bins[9].frequency == 1
    assert found.error == 0


def test_counter_without_pixels_has_no_result():
    assert PixelCounter().result() is None


def test_reliability_file_round_trips(tmp_path):
    found = count((np.random.default_rng(1).random((9, 9)), np.eye(9)))
    write_reliability(tmp_path / "reliability.json", found)
    assert read_reliability(tmp_path / "reliability.json") == found
    assert read_reliability(tmp_path / "none.json") is None
    (tmp_path / "reliability.json").write_text('{"format": "other"}')
    with pytest.raises(ReadError, match="run segnetr evaluate"):
        read_reliability(tmp_path / "reliability.json")

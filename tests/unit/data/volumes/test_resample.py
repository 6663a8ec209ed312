"""Resampling of slices to another pixel spacing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segnetr.data.volumes.resample import count_resampling_bytes, resample_slice


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@pytest.mark.parametrize("size", [(30, 33), (47, 62), (21, 100), (400, 21)])
def test_enlarging_is_linear_interpolation_between_pixel_centers(size: tuple[int, int]) -> None:
    image = noise(21, 30, 2)
    result = resample_slice(image, (max(size[0], 21), max(size[1], 30)))
    maps = torch.from_numpy(image.transpose(2, 0, 1))[None]
    expected = F.interpolate(maps, size=result.shape[:2], mode="bilinear", align_corners=False)
    np.testing.assert_allclose(result, expected[0].permute(1, 2, 0).numpy(), atol=1e-5)


def test_shrinking_averages_a_pattern_finer_than_the_new_pixels() -> None:
    checkers = (np.indices((90, 90)).sum(0) % 2).astype(np.float32)[..., None]
    assert np.ptp(checkers[1::3, 1::3]) == 1
    assert np.abs(resample_slice(checkers, (30, 30))[2:-2, 2:-2] - 0.5).max() < 0.02


@pytest.mark.parametrize("size", [(40, 45), (120, 130), (75, 150)])
def test_a_structure_keeps_its_position_and_size(size: tuple[int, int]) -> None:
    rows, columns = np.mgrid[:100, :110]
    blob = np.exp(-((rows - 60) ** 2 + (columns - 40) ** 2) / 200).astype(np.float32)[..., None]
    result = resample_slice(blob, size)[..., 0]
    scale = size[0] / 100, size[1] / 110
    assert result.sum() == pytest.approx(blob.sum() * scale[0] * scale[1], rel=1e-3)
    for axis, center in enumerate((60, 40)):
        positions = (np.arange(size[axis]) + 0.5) / scale[axis] - 0.5
        found = (result.sum(1 - axis) * positions).sum() / result.sum()
        assert found == pytest.approx(center, abs=0.02)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_type_and_constant_values_are_preserved(dtype: type) -> None:
    top = np.iinfo(dtype).max if dtype != np.float32 else 1.0
    result = resample_slice(np.full((20, 21, 3), top, dtype), (7, 40))
    assert result.dtype == dtype
    assert result.shape == (7, 40, 3)
    np.testing.assert_allclose(result, top, rtol=1e-6)


def test_integers_are_rounded_not_cut() -> None:
    image = np.array([[0, 3]], np.uint8)[..., None]
    assert resample_slice(image, (1, 4))[0, :, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("old", "new"), [((1, 1), (4, 5)), ((2, 9), (1, 1)), ((3000, 2), (1, 2)), ((1, 7), (9, 3))]
)
def test_extreme_sizes_give_finite_values(old: tuple[int, int], new: tuple[int, int]) -> None:
    result = resample_slice(noise(*old, 1), new)
    assert result.shape == (*new, 1)
    assert np.isfinite(result).all()
    assert 0 <= result.min() <= result.max() <= 1


def test_a_slice_of_the_right_size_is_returned_itself() -> None:
    image = noise(5, 6, 1)
    assert resample_slice(image, (5, 6)) is image
    assert count_resampling_bytes((5, 6), (5, 6), channels=3) == 0


def test_memory_estimate_covers_all_copies() -> None:
    assert count_resampling_bytes((10, 10), (20, 30), channels=2) == 4 * (4 * 100 + 7 * 600)

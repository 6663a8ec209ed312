"""Test intensity normalization of images."""

import numpy as np
import pytest
from numpy.typing import DTypeLike

from segnetr.config.schema.segmentation import IntensityConfig
from segnetr.data.preprocessing.intensity import check_channels, normalize
from segnetr.errors import UsageError

FIXED = IntensityConfig(mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.4))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.uint32])
def test_integer_range_is_scaled_to_zero_to_one(dtype: DTypeLike) -> None:
    info = np.iinfo(dtype)
    array = np.array([[[info.min] * 3, [info.max] * 3]], dtype=dtype)
    result = normalize(array, FIXED)
    assert result.dtype == np.float32
    assert np.allclose(result[0, 0], (0 - np.array(FIXED.mean)) / FIXED.std, atol=1e-4)
    assert np.allclose(result[0, 1], (1 - np.array(FIXED.mean)) / FIXED.std, atol=1e-4)


def test_every_8_bit_level_is_exact_in_single_precision() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    config = IntensityConfig(mean=(0.485,), std=(0.229,))
    expected = (levels / 255 - 0.485) / 0.229
    assert np.abs(normalize(levels, config) - expected).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floating_point_values_are_not_rescaled(dtype: DTypeLike) -> None:
    result = normalize(np.full((2, 2, 3), 0.7, dtype), FIXED)
    assert result.dtype == np.float32
    assert np.allclose(result, (0.7 - np.array(FIXED.mean)) / FIXED.std)


def test_single_mean_and_std_apply_to_all_channels() -> None:
    config = IntensityConfig(mean=(0.5,), std=(0.25,))
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 7), dtype=np.uint8)
    assert np.allclose(normalize(array, config), (array / 255 - 0.5) / 0.25, atol=1e-6)


def test_per_image_normalizes_each_channel_to_mean_zero_and_std_one() -> None:
    array = np.random.default_rng(0).normal((3, 900, -4), (1, 300, 0.01), (40, 50, 3))
    result = normalize(array, IntensityConfig(kind="per_image"))
    assert result.dtype == np.float32
    assert np.allclose(result.mean(axis=(0, 1)), 0, atol=1e-5)
    assert np.allclose(result.std(axis=(0, 1)), 1, atol=1e-4)


def test_constant_image_is_normalized_to_zero() -> None:
    result = normalize(np.full((4, 4, 3), 200, np.uint8), IntensityConfig(kind="per_image"))
    assert np.array_equal(result, np.zeros((4, 4, 3)))


def test_black_corners_do_not_affect_the_normalization_of_the_rest() -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(90, 220, (40, 50, 3), dtype=np.uint8)
    framed = np.zeros((60, 70, 3), np.uint8)
    framed[10:50, 10:60] = array
    config = IntensityConfig(kind="per_image_lit")
    alone, inside = normalize(array, config), normalize(framed, config)[10:50, 10:60]
    assert np.allclose(alone, inside, atol=1e-6)
    assert np.allclose(alone.mean(axis=(0, 1)), 0, atol=1e-5)
    assert np.allclose(alone.std(axis=(0, 1)), 1, atol=1e-4)


def test_almost_black_image_is_normalized_with_all_pixels() -> None:
    array = np.random.default_rng(0).integers(0, 20, (40, 50, 3), dtype=np.uint8)
    array[3, 4] = 255
    lit = normalize(array, IntensityConfig(kind="per_image_lit"))
    whole = normalize(array, IntensityConfig(kind="per_image"))
    assert np.allclose(lit, np.clip(whole, -6, 6))
    assert whole.max() > 6 == lit.max()


@pytest.mark.parametrize("kind", ["fixed", "per_image", "per_image_lit"])
def test_input_is_not_modified(kind: str) -> None:
    array = np.random.default_rng(0).random((4, 4, 3), dtype=np.float32)
    before = array.copy()
    normalize(array, IntensityConfig(kind=kind))  # type: ignore[arg-type]
    assert np.array_equal(array, before)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_three_means_are_rejected_for_another_number_of_channels(channels: int) -> None:
    message = f"mean has 3 values for images of {channels} channel.*give one value, or {channels}"
    with pytest.raises(UsageError, match=message):
        normalize(np.zeros((4, 4, channels), np.uint8), IntensityConfig())
    with pytest.raises(UsageError, match=r"std has 3 values"):
        check_channels(IntensityConfig(mean=(0.5,)), channels)
    check_channels(IntensityConfig(kind="per_image"), channels)

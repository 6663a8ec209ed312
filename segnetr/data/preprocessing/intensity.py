"""Normalize gray values and colors for a network."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.intensity import IntensityConfig
from segnetr.errors import UsageError

# Images with a smaller deviation are constant, and their noise must not be amplified.
_SMALLEST_DEVIATION = 1e-6

# For "per_image_lit": a pixel is black if its brightest channel is below the first share of the
# range. If fewer pixels than the second share are not black, all pixels are used. Values are
# clipped at this number of deviations.
_BLACK = 0.12
_LEAST_LIT = 0.05
_MOST_DEVIATIONS = 6.0

# For "per_volume", the 0..1 scale covers this number of deviations on either side of the mean.
DEVIATION_REACH = 5.0

# Mean and deviation on the 0..1 scale for the kinds without such settings.
_SCALED = {
    "per_volume": ((0.5,), (1 / (2 * DEVIATION_REACH),)),
    "percentiles": ((0.5,), (0.25,)),
    "window": ((0.5,), (0.25,)),
}


def normalize(array: NDArray[Any], config: IntensityConfig) -> NDArray[np.float32]:
    """Normalize an image or a slice.

    Args:
        array: (H, W, C). For "fixed", integers are scaled by the range of their type, lowest to 0
            and highest to 1; floating point numbers are expected in 0..1. For "per_image", mean and
            deviation are computed over H and W for each channel; a constant channel becomes 0.
            "per_image_lit" uses only pixels that are not black, and clips at 6 deviations. For the
            kinds of volumes, the values are the result of
            `segnetr.data.volumes.intensity.scale_volume` for the whole volume.
        config: The kind, and mean and deviation for "fixed".

    Returns:
        (H, W, C) float32, newly allocated.

    Raises:
        UsageError: If `config` has neither one mean nor one per channel. The same for deviations.
    """
    if config.kind == "per_image":
        values = array.astype(np.float64)
        return _standardize(values, values.reshape(-1, values.shape[2]))
    if config.kind == "per_image_lit":
        values = array.astype(np.float64)
        cut = _standardize(values, values[_find_lit(array)])
        return np.clip(cut, -_MOST_DEVIATIONS, _MOST_DEVIATIONS, out=cut)
    check_channels(config, array.shape[2])
    low, high = _value_range(array.dtype)
    mean, std = _SCALED.get(config.kind, (config.mean, config.std))
    deviation = np.asarray(std, dtype=np.float64)
    # One multiplication and one addition per value: (v - low) / (high - low), then mean, std.
    scale = 1.0 / ((high - low) * deviation)
    offset = -(np.asarray(mean) / deviation + low * scale)
    result = array * scale.astype(np.float32)
    result += offset.astype(np.float32)
    return result.astype(np.float32, copy=False)


def _standardize(values: NDArray[np.float64], counted: NDArray[np.float64]) -> NDArray[np.float32]:
    """Subtract the mean of the counted pixels (n, C) and divide by their deviation."""
    deviation = counted.std(axis=0)
    scale = np.where(deviation > _SMALLEST_DEVIATION, deviation, np.inf)
    return np.asarray((values - counted.mean(axis=0)) / scale, dtype=np.float32)


def _find_lit(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the pixels (H, W) that are not black, or all pixels if almost all are black."""
    low, high = _value_range(array.dtype)
    lit = array.max(axis=2) > low + _BLACK * (high - low)
    return np.asarray(lit if lit.mean() >= _LEAST_LIT else np.ones_like(lit), dtype=np.bool_)


def check_channels(config: IntensityConfig, channels: int) -> None:
    """Check that a configuration fits the number of channels.

    Raises:
        UsageError: If there is neither one value nor one per channel.
    """
    if config.kind != "fixed":
        return
    for name, values in (("mean", config.mean), ("std", config.std)):
        if len(values) not in (1, channels):
            raise UsageError(
                f"data.intensity.{name} has {len(values)} values for images of {channels} "
                f"channel(s); give one value, or {channels}"
            )


def _value_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return float(info.min), float(info.max)
    return 0.0, 1.0

"""From gray values and colors to the numbers a network sees."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.intensity import IntensityConfig
from segnetr.errors import UsageError

# Below this an image is constant, and its noise must not be blown up.
_SMALLEST_DEVIATION = 1e-6

# Of the kind "per_image_lit": a pixel is black where its brightest channel lies below this share of
# the range; with fewer other pixels than that, all count; values are cut at so many deviations.
_BLACK = 0.12
_LEAST_LIT = 0.05
_MOST_DEVIATIONS = 6.0

# Deviations from the mean that the 0..1 scale of the kind "per_volume" reaches to either side.
DEVIATION_REACH = 5.0

# Mean and deviation, on the 0..1 scale, of the kinds that have no settings for them.
_SCALED = {
    "per_volume": ((0.5,), (1 / (2 * DEVIATION_REACH),)),
    "percentiles": ((0.5,), (0.25,)),
    "window": ((0.5,), (0.25,)),
}


def normalize(array: NDArray[Any], config: IntensityConfig) -> NDArray[np.float32]:
    """Normalize a image or a slice.

    Args:
        array: (H, W, C). With the kind "fixed" integers are scaled by the whole range of their
            type, lowest to 0 and highest to 1; floating point numbers are taken as 0..1 already.
            With the kind "per_image" mean and deviation are taken over H and W, channel by
            channel; a constant channel becomes 0. "per_image_lit" takes both over the pixels that
            are not black and cuts at 6 deviations. With the kinds of volumes the values are what
            `segnetr.data.volumes.intensity.scale_volume` made of the whole volume.
        config: The kind, and mean and deviation of the kind "fixed".

    Returns:
        (H, W, C) float32, newly allocated.

    Raises:
        UsageError: If `config` has neither one mean nor one for each channel, likewise deviations.
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
    # One multiplication and one addition for each value: (v - low) / (high - low), then mean, std.
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
    """Say which pixels (H, W) are not black; all of them where next to none is lit."""
    low, high = _value_range(array.dtype)
    lit = array.max(axis=2) > low + _BLACK * (high - low)
    return np.asarray(lit if lit.mean() >= _LEAST_LIT else np.ones_like(lit), dtype=np.bool_)


def check_channels(config: IntensityConfig, channels: int) -> None:
    """Refuse a configuration that does not fit images of so many channels.

    Raises:
        UsageError: If there is neither one value nor one for each channel.
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

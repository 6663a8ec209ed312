"""The values of a whole volume on one scale, before anything cuts, resizes or augments it.

MR has no unit, so its values mean something only beside the other values of the same scan; a
window of CT is the same for all. Either way a slice must not be normalized by itself: an empty one
would be blown up. Training and prediction both come here first, so they see the same numbers.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.intensity import IntensityConfig
from segnetr.data.preprocessing.intensity import DEVIATION_REACH

_LOWEST_PERCENT, _HIGHEST_PERCENT = 0.5, 99.5
_HIGHEST = np.iinfo(np.uint16).max


def scale_volume(array: NDArray[Any], config: IntensityConfig) -> NDArray[np.uint16]:
    """Bring values to 0..65535, which stands for 0..1, by one of the kinds made for volumes.

    Args:
        array: (X, Y, Z) or (X, Y, Z, C); each channel is taken for itself.
        config: "per_volume": mean and deviation of the voxels that are not 0 (air, or cut away),
            five deviations reaching to either end; "percentiles" and "window": the limits. What
            lies outside is cut. A constant channel becomes constant.

    Returns:
        Of the shape of `array`, newly allocated.

    Raises:
        ValueError: If the kind is none for volumes.
    """
    if not config.is_of_volumes:
        raise ValueError(f"intensity of the kind {config.kind} is not one of whole volumes")
    if array.ndim == 3:
        return scale_values(array, _find_limits(array, config))
    scaled = np.empty(array.shape, dtype=np.uint16, order="F")
    for channel in range(array.shape[3]):
        values = array[..., channel]
        scaled[..., channel] = scale_values(values, _find_limits(values, config))
    return scaled


def scale_values(values: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.uint16]:
    """Bring values to 0..65535, given the two that become the lowest and the highest of them."""
    low, high = limits
    # In float64, because a scan may lie far from 0 (uncorrected CT, map of times).
    factor = _HIGHEST / (high - low) if high > low else 0.0
    shifted: NDArray[np.float64] = values.astype(np.float64) - low
    shifted *= factor
    np.rint(shifted, out=shifted)
    np.clip(shifted, 0, _HIGHEST, out=shifted)
    return shifted.astype(np.uint16)


def find_percents(config: IntensityConfig) -> tuple[float, float]:
    """Give the percentiles, 0 to 100, whose values become 0 and 1 with the kind "percentiles"."""
    low = _LOWEST_PERCENT if config.low is None else config.low
    high = _HIGHEST_PERCENT if config.high is None else config.high
    return low, high


def _find_limits(values: NDArray[Any], config: IntensityConfig) -> tuple[float, float]:
    """Give the values that become 0 and 1."""
    if config.kind == "window":
        return float(config.low or 0.0), float(config.high or 0.0)
    if config.kind == "percentiles":
        lowest, highest = np.percentile(values, find_percents(config))
        return float(lowest), float(highest)
    inside = values[values != 0].astype(np.float64)
    if not inside.size:
        return 0.0, 0.0
    mean, deviation = float(inside.mean()), float(inside.std())
    return mean - DEVIATION_REACH * deviation, mean + DEVIATION_REACH * deviation

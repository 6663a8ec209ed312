"""Scale the values of a whole volume, before it is sliced, resized or augmented.

MR intensities have no unit and are only comparable within one scan, while a CT window is the same
for all scans. In both cases a single slice must not be normalized by itself, since the noise of an
empty slice would be amplified. Training and prediction both use this module and therefore see the
same numbers.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.intensity import IntensityConfig
from segnetr.data.preprocessing.intensity import DEVIATION_REACH
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.data.volumes.percentiles import Chunks, find_percentiles

Range = tuple[float, float]
"""The values that become 0 and 1."""

_DEFAULT_PERCENTS = (0.5, 99.5)
_MAX_UINT16 = np.iinfo(np.uint16).max


def scale_volume(array: NDArray[Any], config: IntensityConfig) -> NDArray[np.uint16]:
    """Scale a volume to 0..65535, which represents 0..1, by one of the kinds for volumes.

    Args:
        array: (X, Y, Z) or (X, Y, Z, C). Channels are scaled separately.
        config: "per_volume": mean and standard deviation of the non-zero voxels (zero is air, or
            masked out), with five deviations to either side; "percentiles" and "window": the
            configured limits. Values outside are clipped. A constant channel stays constant.

    Returns:
        A new array of the same shape.

    Raises:
        ValueError: If the kind is not one for volumes.
    """
    _check_kind(config)
    if array.ndim == 3:
        return scale_values(array, _find_range(array, config))
    scaled = np.empty(array.shape, dtype=np.uint16, order="F")
    for channel in range(array.shape[3]):
        values = array[..., channel]
        scaled[..., channel] = scale_values(values, _find_range(values, config))
    return scaled


def scale_values(values: NDArray[Any], limits: Range) -> NDArray[np.uint16]:
    """Scale values linearly so that `limits` become 0 and 65535, and clip."""
    low, high = limits
    # In float64, because values may be far from 0 (uncorrected CT, relaxation times).
    factor = _MAX_UINT16 / (high - low) if high > low else 0.0
    shifted: NDArray[np.float64] = values.astype(np.float64) - low
    shifted *= factor
    np.rint(shifted, out=shifted)
    np.clip(shifted, 0, _MAX_UINT16, out=shifted)
    return shifted.astype(np.uint16)


def find_stream_ranges(volume: VolumeFile, config: IntensityConfig) -> tuple[Range, ...]:
    """Return the range of each channel, computed plane by plane with bounded memory.

    The results are those of `scale_volume` on the whole volume.

    Args:
        volume: Read once for percentiles of 16-bit values, twice for mean and deviation.
        config: One of the kinds for volumes.

    Raises:
        ReadError: If the file can no longer be read.
        ValueError: If the kind is not one for volumes.
    """
    _check_kind(config)
    if config.kind == "window":
        return (_window(config),) * volume.channels
    return tuple(_find_stream_range(volume, config, k) for k in range(volume.channels))


def _check_kind(config: IntensityConfig) -> None:
    if not config.is_of_volumes:
        raise ValueError(f"the intensity kind {config.kind!r} is not one for volumes")


def _percents(config: IntensityConfig) -> Range:
    """Return the two percentiles, 0 to 100, of the kind "percentiles"."""
    low, high = _DEFAULT_PERCENTS
    return low if config.low is None else config.low, high if config.high is None else config.high


def _window(config: IntensityConfig) -> Range:
    return float(config.low or 0.0), float(config.high or 0.0)


def _find_range(values: NDArray[Any], config: IntensityConfig) -> Range:
    if config.kind == "window":
        return _window(config)
    if config.kind == "percentiles":
        low, high = np.percentile(values, _percents(config))
        return float(low), float(high)
    inside = values[values != 0].astype(np.float64)
    if not inside.size:
        return 0.0, 0.0
    mean, deviation = float(inside.mean()), float(inside.std())
    return mean - DEVIATION_REACH * deviation, mean + DEVIATION_REACH * deviation


def _find_stream_range(volume: VolumeFile, config: IntensityConfig, channel: int) -> Range:
    def planes() -> Iterator[NDArray[Any]]:
        return (plane[..., channel].ravel() for plane in volume.read_planes())

    if config.kind == "percentiles":
        count = math.prod(volume.grid)
        return find_percentiles(planes, _percents(config), dtype=volume.dtype, count=count)
    return _find_deviation_range(planes)


def _find_deviation_range(planes: Chunks) -> Range:
    """Return the mean of the non-zero values, minus and plus five standard deviations."""
    count, total = 0, 0.0
    for values in planes():
        inside = values[values != 0].astype(np.float64)
        count, total = count + inside.size, total + float(inside.sum())
    if not count:
        return 0.0, 0.0
    mean = total / count
    squares = sum(
        float(((values[values != 0].astype(np.float64) - mean) ** 2).sum()) for values in planes()
    )
    deviation = math.sqrt(squares / count)
    return mean - DEVIATION_REACH * deviation, mean + DEVIATION_REACH * deviation

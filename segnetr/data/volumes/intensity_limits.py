"""The values of a volume that become 0 and 1, found while it is read plane by plane.

The numbers are those of `segnetr.data.volumes.intensity` on the volume as a whole.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.intensity import IntensityConfig
from segnetr.data.preprocessing.intensity import DEVIATION_REACH
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.data.volumes.intensity import find_percents
from segnetr.data.volumes.percentiles import Pieces, find_percentiles


def find_stream_limits(
    volume: VolumeFile, config: IntensityConfig
) -> tuple[tuple[float, float], ...]:
    """Give for each channel the values that become 0 and 1.

    Args:
        volume: Read once for percentiles of 16-bit values, twice for a mean and its deviation.
        config: One of the kinds made for volumes.

    Raises:
        ReadError: If the file cannot be read any more.
        ValueError: If the kind is none for volumes.
    """
    if not config.is_of_volumes:
        raise ValueError(f"intensity of the kind {config.kind} is not one of whole volumes")
    if config.kind == "window":
        return ((float(config.low or 0.0), float(config.high or 0.0)),) * volume.channels
    return tuple(
        _find_channel_limits(volume, config, channel) for channel in range(volume.channels)
    )


def _find_channel_limits(
    volume: VolumeFile, config: IntensityConfig, channel: int
) -> tuple[float, float]:
    def planes() -> Iterator[NDArray[Any]]:
        return (plane[..., channel].ravel() for plane in volume.read_planes())

    if config.kind == "percentiles":
        count = math.prod(volume.grid)
        return find_percentiles(planes, find_percents(config), dtype=volume.dtype, count=count)
    return _find_reach(planes)


def _find_reach(planes: Pieces) -> tuple[float, float]:
    """Go five deviations to either side of the mean of what is not 0."""
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

"""Intensity statistics of a file before normalization: brightness, contrast, color, sharpness."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAX_SIDE = 128
_PERCENTILES = (5, 50, 95)
# Share of the 95th percentile below which noise in black corners does not count as color.
_DARK = 0.05
_TINY = 1e-12


class IntensityStatistics:
    """Mean over the slices of a file of a few statistics of each slice.

    The statistics, of values before normalization, are: mean and standard deviation of each
    channel; the 5th, 50th and 95th percentile of the gray values; color, the mean relative
    difference between the highest and the lowest channel of a pixel; and sharpness, the mean
    absolute difference between neighboring pixels.

    Args:
        channels: Channels C of a slice in the network's input. Gray images are repeated to fill
            them.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._sum = np.zeros(2 * channels + len(_PERCENTILES) + 2)
        self._slices = 0

    def update(self, image: NDArray[Any]) -> None:
        """Add a slice (h, w, C) or (h, w, 1). A large slice is subsampled."""
        stride = max(1, -(-max(image.shape[:2]) // _MAX_SIDE))
        values = _to_floats(image[::stride, ::stride])
        if values.shape[2] != self._channels:
            values = np.repeat(values[..., :1], self._channels, axis=2)
        gray = values.mean(axis=2)
        low, middle, high = np.percentile(gray, _PERCENTILES)
        steps = [np.abs(np.diff(gray, axis=axis)) for axis in (0, 1)]
        self._sum += np.concatenate(
            [
                values.mean(axis=(0, 1)),
                values.std(axis=(0, 1)),
                [low, middle, high, _mean_saturation(values, floor=_DARK * abs(float(high)))],
                [np.mean([step.mean() if step.size else 0.0 for step in steps])],
            ]
        )
        self._slices += 1

    def result(self) -> NDArray[np.float64]:
        """Return the statistics (2 C + 5,)."""
        return self._sum / max(self._slices, 1)


def _mean_saturation(values: NDArray[np.float64], *, floor: float) -> float:
    """Return the mean relative difference between channels. Values below `floor` hardly count."""
    highest, lowest = values.max(axis=2), values.min(axis=2)
    size = np.maximum(np.abs(values).max(axis=2), max(floor, _TINY))
    return float(((highest - lowest) / size).mean())


def _to_floats(values: NDArray[Any]) -> NDArray[np.float64]:
    """Scale integers to 0..1 by the range of their type, as normalization does."""
    if values.dtype.kind not in "iu":
        return values.astype(np.float64)
    info = np.iinfo(values.dtype)
    return (values.astype(np.float64) - info.min) / (float(info.max) - float(info.min))

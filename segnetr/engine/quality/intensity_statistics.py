"""What a file looks like before a network sees it: brightness, contrast, color, sharpness."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_SIDE = 128
_PERCENTILES = (5, 50, 95)
# Of the 95th percentile: noise in black corners is no color.
_DARK = 0.05
_TINY = 1e-12


class Appearance:
    """The mean over the slices of a file of a few numbers about each.

    They are, of values before normalization: mean and deviation of each channel; the 5th, 50th and
    95th percentile of the gray values; how far on average the lowest channel of a pixel is below
    its highest, as a share of it, which is color; the mean step from a pixel to the next, which
    is sharpness.

    Args:
        channels: Channels C the network takes of a slice; gray is repeated to fill them.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._sum = np.zeros(2 * channels + len(_PERCENTILES) + 2)
        self._slices = 0

    def see(self, image: NDArray[Any]) -> None:
        """Look at a slice (h, w, C) or (h, w, 1); of a large one at every n-th pixel."""
        stride = max(1, -(-max(image.shape[:2]) // _MOST_SIDE))
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
                [low, middle, high, _find_color(values, least=_DARK * abs(float(high)))],
                [np.mean([step.mean() if step.size else 0.0 for step in steps])],
            ]
        )
        self._slices += 1

    def finish(self) -> NDArray[np.float64]:
        """Give the numbers (2 C + 5,)."""
        return self._sum / max(self._slices, 1)


def _find_color(values: NDArray[np.float64], *, least: float) -> float:
    """Give the mean share by which channels of a pixel differ; below `least` it hardly counts."""
    highest, lowest = values.max(axis=2), values.min(axis=2)
    size = np.maximum(np.abs(values).max(axis=2), max(least, _TINY))
    return float(((highest - lowest) / size).mean())


def _to_floats(values: NDArray[Any]) -> NDArray[np.float64]:
    """Bring integers to 0..1 by the range of their type, as normalization does."""
    if values.dtype.kind not in "iu":
        return values.astype(np.float64)
    info = np.iinfo(values.dtype)
    return (values.astype(np.float64) - info.min) / (float(info.max) - float(info.min))

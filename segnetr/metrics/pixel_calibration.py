"""Whether what a network says of pixels with a probability is true as often as it says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segnetr.metrics.classification_summary import CalibrationBin
from segnetr.metrics.summary import FloatArray

_BINS = 10
_MOST_PIXELS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelReliability:
    """Probabilities of the foreground classes against the truth.

    Attributes:
        bins: Ten bins of the probability; `count` is in pixels and classes.
        error: Expected calibration error, the mean gap over all pixels and foreground classes.
        cases: Cases that were looked at.
    """

    bins: tuple[CalibrationBin, ...]
    error: float
    cases: int


class PixelCounter:
    """Adds up the pixels of many cases; each case weighs about as much as every other.

    Of a case with more than a million pixels every n-th is taken.
    """

    def __init__(self) -> None:
        self._count: FloatArray = np.zeros(_BINS)
        self._said: FloatArray = np.zeros(_BINS)
        self._true: FloatArray = np.zeros(_BINS)
        self._cases = 0

    def add(self, probabilities: NDArray[np.float32], truth: NDArray[np.uint8]) -> None:
        """Count the pixels of one case.

        Args:
            probabilities: (K, ...) of each class, background first.
            truth: Class indices (...), on the same grid.
        """
        classes = len(probabilities)
        stride = -(-truth.size // _MOST_PIXELS)
        true = truth.reshape(-1)[::stride]
        for index in range(1, classes):
            said = probabilities[index].reshape(-1)[::stride]
            place = np.minimum((said * _BINS).astype(np.int64), _BINS - 1)
            share = 1 / len(true)
            self._count += share * np.bincount(place, minlength=_BINS)
            self._said += share * np.bincount(place, weights=said, minlength=_BINS)
            self._true += share * np.bincount(place, weights=true == index, minlength=_BINS)
        self._cases += 1

    def result(self) -> PixelReliability | None:
        """Give what was counted; None where no case was."""
        if self._cases == 0:
            return None
        total = self._count.sum()
        error = float(np.abs(self._said - self._true).sum() / total)
        return PixelReliability(
            bins=tuple(self._bin(index) for index in range(_BINS)), error=error, cases=self._cases
        )

    def _bin(self, index: int) -> CalibrationBin:
        count = float(self._count[index])
        # Shares of a case, shown as if each had a million pixels.
        return CalibrationBin(
            low=index / _BINS,
            high=(index + 1) / _BINS,
            count=round(count * _MOST_PIXELS),
            confidence=float(self._said[index]) / count if count else None,
            frequency=float(self._true[index]) / count if count else None,
        )


def bins_from(entries: Sequence[dict[str, float | None]]) -> tuple[CalibrationBin, ...]:
    """Read back bins from plain data.

    Raises:
        KeyError: If a value is missing.
        TypeError: If an edge or a count is.
    """
    return tuple(
        CalibrationBin(
            low=_number(entry["low"]),
            high=_number(entry["high"]),
            count=int(_number(entry["count"])),
            confidence=entry["confidence"],
            frequency=entry["frequency"],
        )
        for entry in entries
    )


def _number(value: float | None) -> float:
    if value is None:
        raise TypeError("a bin needs its edges and its count")
    return float(value)

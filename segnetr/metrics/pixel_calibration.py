"""Calibration of pixel probabilities."""

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
    """Calibration of the foreground probabilities.

    Attributes:
        bins: Ten bins of the probability. `count` is the number of pixels, summed over classes.
        error: Expected calibration error: mean gap over all pixels and foreground classes.
        cases: Number of cases.
    """

    bins: tuple[CalibrationBin, ...]
    error: float
    cases: int

    @property
    def error_above_first(self) -> float | None:
        """The error without the lowest bin; None if all pixels are in that bin.

        Nearly all pixels are easy background, so a mean over them is too optimistic.
        """
        gaps = [
            (one.count, abs(one.confidence - one.frequency))
            for one in self.bins[1:]
            if one.confidence is not None and one.frequency is not None
        ]
        total = sum(count for count, _ in gaps)
        return sum(count * gap for count, gap in gaps) / total if total else None


class CasePixels:
    """Counts the pixels of one case, chunk by chunk and class by class.

    Cases with more than a million pixels are subsampled: every n-th pixel is used.

    Args:
        pixels: Number of pixels of the whole case.
    """

    def __init__(self, pixels: int) -> None:
        self._stride = -(-pixels // _MOST_PIXELS)
        self._share = 1 / -(-pixels // self._stride)
        self.table: FloatArray = np.zeros((3, _BINS))

    def add(
        self,
        index: int,
        said: NDArray[np.float32],
        ground_truth: NDArray[np.uint8],
        *,
        start: int = 0,
    ) -> None:
        """Add a chunk of the case for one class. The background class is ignored.

        Args:
            index: Index of the class.
            said: Probabilities of the class, of any shape.
            ground_truth: Class indices of the same pixels.
            start: Number of pixels of the case before this chunk, so that the subsample does not
                depend on the division into chunks.
        """
        if index == 0:
            return
        subsample = slice(-start % self._stride, None, self._stride)
        values = said.reshape(-1)[subsample]
        bins = np.minimum((values * _BINS).astype(np.int64), _BINS - 1)
        is_true = ground_truth.reshape(-1)[subsample] == index
        for row, weights in enumerate((None, values, is_true)):
            self.table[row] += self._share * np.bincount(bins, weights=weights, minlength=_BINS)


class PixelCounter:
    """Sums the pixels of many cases. All cases have about the same weight."""

    def __init__(self) -> None:
        self._table: FloatArray = np.zeros((3, _BINS))
        self._cases = 0

    def add(self, case: CasePixels) -> None:
        """Add a case after all of its chunks were added."""
        self._table += case.table
        self._cases += 1

    def result(self) -> PixelReliability | None:
        """Return the calibration; None if no case was added."""
        return _judge(self._table, self._cases)


def unite_reliabilities(parts: Sequence[PixelReliability | None]) -> PixelReliability | None:
    """Merge the calibrations of several sets of cases; None if all of them are None.

    All cases of all sets have the same weight.
    """
    known = [part for part in parts if part is not None]
    table: FloatArray = np.zeros((3, _BINS))
    for part in known:
        for index, found in enumerate(part.bins):
            weights = (1.0, found.confidence or 0.0, found.frequency or 0.0)
            table[:, index] += found.count / _MOST_PIXELS * np.array(weights)
    return _judge(table, sum(part.cases for part in known))


def _judge(table: FloatArray, cases: int) -> PixelReliability | None:
    """Return the calibration from (3, bins): pixels, sums of probabilities, true pixels."""
    if cases == 0:
        return None
    error = float(np.abs(table[1] - table[2]).sum() / table[0].sum())
    bins = tuple(_make_bin(index, *table[:, index].tolist()) for index in range(_BINS))
    return PixelReliability(bins=bins, error=error, cases=cases)


def _make_bin(index: int, count: float, said: float, true: float) -> CalibrationBin:
    return CalibrationBin(
        low=index / _BINS,
        high=(index + 1) / _BINS,
        # Counts are shares of a case, scaled to a million pixels per case.
        count=round(count * _MOST_PIXELS),
        confidence=said / count if count else None,
        frequency=true / count if count else None,
    )


def bins_from(entries: Sequence[dict[str, float | None]]) -> tuple[CalibrationBin, ...]:
    """Return bins from plain data.

    Raises:
        KeyError: If a key is missing.
        TypeError: If an edge or a count is None.
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

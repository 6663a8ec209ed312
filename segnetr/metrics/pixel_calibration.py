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
    """Probabilities of the foreground classes against the ground truth.

    Attributes:
        bins: Ten bins of the probability; `count` is in pixels and classes.
        error: Expected calibration error, the mean gap over all pixels and foreground classes.
        cases: Cases that were looked at.
    """

    bins: tuple[CalibrationBin, ...]
    error: float
    cases: int

    @property
    def error_above_first(self) -> float | None:
        """The same error without the lowest bin, where easy background lies; None: all lies there.

        Nearly all pixels are sure background, and a mean over them promises too much.
        """
        gaps = [
            (one.count, abs(one.confidence - one.frequency))
            for one in self.bins[1:]
            if one.confidence is not None and one.frequency is not None
        ]
        total = sum(count for count, _ in gaps)
        return sum(count * gap for count, gap in gaps) / total if total else None


class CasePixels:
    """Counts the pixels of one case, which come part by part and class by class.

    Of a case with more than a million pixels every n-th is taken.

    Args:
        pixels: Of the whole case.
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
        """Count a part of the case in one class; the background says nothing by itself.

        Args:
            index: The class.
            said: Its probabilities, of any shape.
            ground_truth: Class indices at the same pixels.
            start: Pixels of the case that lie before these, so that what is taken does not depend
                on how the case is cut into parts.
        """
        if index == 0:
            return
        taken = slice(-start % self._stride, None, self._stride)
        values = said.reshape(-1)[taken]
        place = np.minimum((values * _BINS).astype(np.int64), _BINS - 1)
        is_true = ground_truth.reshape(-1)[taken] == index
        for row, weights in enumerate((None, values, is_true)):
            self.table[row] += self._share * np.bincount(place, weights=weights, minlength=_BINS)


class PixelCounter:
    """Adds up the pixels of many cases; each case weighs about as much as every other."""

    def __init__(self) -> None:
        self._table: FloatArray = np.zeros((3, _BINS))
        self._cases = 0

    def add(self, case: CasePixels) -> None:
        """Add a case that is counted to its end."""
        self._table += case.table
        self._cases += 1

    def result(self) -> PixelReliability | None:
        """Give what was counted; None where no case was."""
        return _judge(self._table, self._cases)


def unite_reliabilities(parts: Sequence[PixelReliability | None]) -> PixelReliability | None:
    """Put the calibrations of several sets of cases together; None where there is none.

    A case weighs in it as much as every other one of all sets.
    """
    known = [part for part in parts if part is not None]
    table: FloatArray = np.zeros((3, _BINS))
    for part in known:
        for index, found in enumerate(part.bins):
            weights = (1.0, found.confidence or 0.0, found.frequency or 0.0)
            table[:, index] += found.count / _MOST_PIXELS * np.array(weights)
    return _judge(table, sum(part.cases for part in known))


def _judge(table: FloatArray, cases: int) -> PixelReliability | None:
    """Give the reliability of counts, sums of what was said, and counts of what was true."""
    if cases == 0:
        return None
    error = float(np.abs(table[1] - table[2]).sum() / table[0].sum())
    bins = tuple(_make_bin(index, *table[:, index].tolist()) for index in range(_BINS))
    return PixelReliability(bins=bins, error=error, cases=cases)


def _make_bin(index: int, count: float, said: float, true: float) -> CalibrationBin:
    return CalibrationBin(
        low=index / _BINS,
        high=(index + 1) / _BINS,
        # Shares of a case, shown as if each had a million pixels.
        count=round(count * _MOST_PIXELS),
        confidence=said / count if count else None,
        frequency=true / count if count else None,
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

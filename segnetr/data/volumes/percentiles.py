"""Exact percentiles of numbers that never lie in memory together.

Numbers are counted by the upper 16 bits of their rank among all numbers of their type, then those
that share the digit of a wanted rank by the next 16 bits, and so on: 16-bit numbers are gone
through once, float32 ones twice.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pieces = Callable[[], Iterator[NDArray[Any]]]
"""Gives all numbers anew with each call, in arrays of one axis."""

_BITS = 16


def find_percentiles(
    pieces: Pieces, percents: tuple[float, float], *, dtype: np.dtype[Any], count: int
) -> tuple[float, float]:
    """Find two percentiles; between two numbers by a line, as numpy does.

    Args:
        pieces: The numbers, none of them NaN.
        percents: 0 to 100.
        dtype: Integers or floating point numbers of 1 to 8 bytes.
        count: How many numbers there are, at least one.
    """
    places = [percent / 100 * (count - 1) for percent in percents]
    ranks = [rank for place in places for rank in (math.floor(place), math.ceil(place))]
    found = _find_ranked(pieces, ranks, dtype)
    low, high = (
        first + (second - first) * (place - math.floor(place))
        for place, first, second in zip(places, found[::2], found[1::2], strict=True)
    )
    return low, high


def _find_ranked(pieces: Pieces, ranks: Sequence[int], dtype: np.dtype[Any]) -> list[float]:
    """Find the numbers of some ranks, 0 the lowest, digit by digit from the upper end."""
    left, prefixes = list(ranks), [0] * len(ranks)
    for shift in range(max(_BITS, 8 * dtype.itemsize) - _BITS, -1, -_BITS):
        counts = {prefix: np.zeros(1 << _BITS, dtype=np.int64) for prefix in prefixes}
        for values in pieces():
            digits = _to_keys(values) >> np.uint64(shift)
            upper = digits >> np.uint64(_BITS)
            lower = (digits & np.uint64((1 << _BITS) - 1)).astype(np.int64)
            for prefix in counts:
                counts[prefix] += np.bincount(lower[upper == prefix], minlength=1 << _BITS)
        for at, prefix in enumerate(prefixes):
            below = np.cumsum(counts[prefix])
            digit = int(np.searchsorted(below, left[at], side="right"))
            left[at] -= int(below[digit - 1]) if digit else 0
            prefixes[at] = prefix << _BITS | digit
    return [_from_key(key, dtype) for key in prefixes]


def _to_keys(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Give unsigned integers in the order of the values."""
    width = 8 * values.dtype.itemsize
    bits = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}").astype(np.uint64)
    sign = np.uint64(1 << (width - 1))
    if values.dtype.kind == "i":
        return bits ^ sign
    if values.dtype.kind == "f":
        # Of negative numbers the one with the larger bits is the lower one.
        every = np.uint64((1 << width) - 1)
        return np.where(bits & sign, bits ^ every, bits | sign)
    return bits


def _from_key(key: int, dtype: np.dtype[Any]) -> float:
    """Undo `_to_keys` for one number."""
    width = 8 * dtype.itemsize
    sign = 1 << (width - 1)
    if dtype.kind == "i":
        key ^= sign
    elif dtype.kind == "f":
        key = key ^ sign if key & sign else key ^ ((1 << width) - 1)
    return float(np.array([key], dtype=f"u{dtype.itemsize}").view(dtype)[0])

"""Exact percentiles of numbers that do not fit in memory at once.

A radix search: numbers are counted by the upper 16 bits of a key that sorts like them, then the
numbers in the bin of the wanted rank by the next 16 bits, and so on. 16-bit numbers are read once,
float32 numbers twice.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Chunks = Callable[[], Iterator[NDArray[Any]]]
"""Each call iterates over all numbers, in one-dimensional arrays."""

_BITS = 16


def find_percentiles(
    chunks: Chunks, percents: tuple[float, float], *, dtype: np.dtype[Any], count: int
) -> tuple[float, float]:
    """Return two percentiles, interpolated linearly between two numbers as in numpy.

    Args:
        chunks: The numbers, without NaN.
        percents: 0 to 100.
        dtype: Integers or floating point numbers of 1 to 8 bytes.
        count: Number of numbers, at least one.
    """
    positions = [percent / 100 * (count - 1) for percent in percents]
    ranks = [rank for p in positions for rank in (math.floor(p), math.ceil(p))]
    found = _find_ranked(chunks, ranks, dtype)
    low, high = (
        first + (second - first) * (position - math.floor(position))
        for position, first, second in zip(positions, found[::2], found[1::2], strict=True)
    )
    return low, high


def _find_ranked(chunks: Chunks, ranks: Sequence[int], dtype: np.dtype[Any]) -> list[float]:
    """Find the numbers with the given ranks (0 is the lowest), from the upper digit down."""
    remaining, prefixes = list(ranks), [0] * len(ranks)
    for shift in range(max(_BITS, 8 * dtype.itemsize) - _BITS, -1, -_BITS):
        counts = {prefix: np.zeros(1 << _BITS, dtype=np.int64) for prefix in prefixes}
        for values in chunks():
            digits = _to_keys(values) >> np.uint64(shift)
            upper = digits >> np.uint64(_BITS)
            lower = (digits & np.uint64((1 << _BITS) - 1)).astype(np.int64)
            for prefix in counts:
                counts[prefix] += np.bincount(lower[upper == prefix], minlength=1 << _BITS)
        for i, prefix in enumerate(prefixes):
            below = np.cumsum(counts[prefix])
            digit = int(np.searchsorted(below, remaining[i], side="right"))
            remaining[i] -= int(below[digit - 1]) if digit else 0
            prefixes[i] = prefix << _BITS | digit
    return [_from_key(key, dtype) for key in prefixes]


def _to_keys(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Return unsigned integers that sort like the values."""
    width = 8 * values.dtype.itemsize
    bits = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}").astype(np.uint64)
    sign = np.uint64(1 << (width - 1))
    if values.dtype.kind == "i":
        return bits ^ sign
    if values.dtype.kind == "f":
        # Negative floats sort in reverse order of their bits.
        ones = np.uint64((1 << width) - 1)
        return np.where(bits & sign, bits ^ ones, bits | sign)
    return bits


def _from_key(key: int, dtype: np.dtype[Any]) -> float:
    """Invert `_to_keys` for one number."""
    width = 8 * dtype.itemsize
    sign = 1 << (width - 1)
    if dtype.kind == "i":
        key ^= sign
    elif dtype.kind == "f":
        key = key ^ sign if key & sign else key ^ ((1 << width) - 1)
    return float(np.array([key], dtype=f"u{dtype.itemsize}").view(dtype)[0])

"""Amounts of memory such as "2G", as strings and as numbers of bytes."""

import math
import re

from segnetr.errors import UsageError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return the bytes of an amount of memory such as "2G", "1.5 GiB", "800m" or "4000000".

    The units are powers of 1024.

    Raises:
        UsageError: If it is not an amount, or less than one byte.
    """
    found = _SIZE.fullmatch(text)
    size = math.floor(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size < 1:
        raise UsageError(
            f"{text!r} is not an amount of memory; expected 2G, 800M or a number of bytes"
        )
    return size


def format_size(size: int) -> str:
    """Return a number of bytes with a unit, for example "1.5 GiB" or "800 MiB"."""
    unit = max((name for name in "KMG" if size >= _UNITS[name]), key="KMG".index, default="")
    return f"{size / _UNITS[unit]:.4g} {unit}iB" if unit else f"{size} bytes"

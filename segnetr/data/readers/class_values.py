"""Masks whose values stand for classes by a table, and not by being class indices."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.image_file import ClassValues, FileValue, MaskValuesError

_SHOWN = 8


def has_colors(values: ClassValues) -> bool:
    """Tell whether a table speaks of colors."""
    return any(isinstance(value, tuple) for of_class in values for value in of_class)


def map_values(path: Path, stored: NDArray[Any], values: ClassValues) -> NDArray[np.uint8]:
    """Turn the values of a mask into class indices by a table.

    Args:
        path: The file, for messages.
        stored: Values of any shape, or colors (..., 3) where the table has colors.
        values: The values of each class.

    Returns:
        Class indices, without the axis of colors.

    Raises:
        MaskValuesError: If the mask holds a value that is in no class.
    """
    colors = has_colors(values)
    codes = pack_colors(stored) if colors else stored
    found = np.unique(codes)
    classes = np.full(len(found), -1)
    for index, of_class in enumerate(values):
        classes[np.isin(found, [_code(value, colors=colors) for value in of_class])] = index
    if (classes < 0).any():
        shown = [show_code(code, colors=colors) for code in found[classes < 0]]
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        raise MaskValuesError(
            path,
            f"it holds {', '.join(shown[:_SHOWN])}{more}, which the description of the data set"
            " gives to no class",
        )
    return np.asarray(classes.astype(np.uint8)[np.searchsorted(found, codes)])


def pack_colors(stored: NDArray[Any]) -> NDArray[np.int64]:
    """Turn colors (..., 3) into one number each."""
    parts = stored.astype(np.int64)
    return np.asarray((parts[..., 0] << 16) | (parts[..., 1] << 8) | parts[..., 2])


def unpack_color(code: int) -> tuple[int, int, int]:
    """Turn a number of `pack_colors` back into a color."""
    return (code >> 16, (code >> 8) & 255, code & 255)


def show_code(code: Any, *, colors: bool) -> str:
    """Write a value or a packed color for people."""
    return str(unpack_color(int(code))) if colors else f"{code:g}"


def _code(value: FileValue, *, colors: bool) -> int:
    if not colors:
        assert isinstance(value, int)
        return value
    red, green, blue = value if isinstance(value, tuple) else (value, value, value)
    return (red << 16) | (green << 8) | blue

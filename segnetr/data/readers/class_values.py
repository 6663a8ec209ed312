"""Masks whose values stand for classes by a table, and not by being class indices."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.image_file import ClassValues, FileValue, MaskValuesError

_SHOWN = 8


def has_colours(values: ClassValues) -> bool:
    """Tell whether a table speaks of colours."""
    return any(isinstance(value, tuple) for of_class in values for value in of_class)


def map_values(path: Path, stored: NDArray[Any], values: ClassValues) -> NDArray[np.uint8]:
    """Turn the values of a mask into class indices by a table.

    Args:
        path: The file, for messages.
        stored: Values of any shape, or colours (..., 3) where the table has colours.
        values: The values of each class.

    Returns:
        Class indices, without the axis of colours.

    Raises:
        MaskValuesError: If the mask holds a value that is in no class.
    """
    colours = has_colours(values)
    codes = pack_colours(stored) if colours else stored
    found = np.unique(codes)
    classes = np.full(len(found), -1)
    for index, of_class in enumerate(values):
        classes[np.isin(found, [_code(value, colours=colours) for value in of_class])] = index
    if (classes < 0).any():
        shown = [show_code(code, colours=colours) for code in found[classes < 0]]
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        raise MaskValuesError(
            path,
            f"it holds {', '.join(shown[:_SHOWN])}{more}, which the description of the data set"
            " gives to no class",
        )
    return np.asarray(classes.astype(np.uint8)[np.searchsorted(found, codes)])


def pack_colours(stored: NDArray[Any]) -> NDArray[np.int64]:
    """Turn colours (..., 3) into one number each."""
    parts = stored.astype(np.int64)
    return np.asarray((parts[..., 0] << 16) | (parts[..., 1] << 8) | parts[..., 2])


def unpack_colour(code: int) -> tuple[int, int, int]:
    """Turn a number of `pack_colours` back into a colour."""
    return (code >> 16, (code >> 8) & 255, code & 255)


def show_code(code: Any, *, colours: bool) -> str:
    """Write a value or a packed colour for people."""
    return str(unpack_colour(int(code))) if colours else f"{code:g}"


def _code(value: FileValue, *, colours: bool) -> int:
    if not colours:
        assert isinstance(value, int)
        return value
    red, green, blue = value if isinstance(value, tuple) else (value, value, value)
    return (red << 16) | (green << 8) | blue

"""Axes of the charts: linear and logarithmic, with round ends and round ticks."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from segnetr.outputs.charts.svg import line, text

_MANY_DECADES = 4


class Rectangle(NamedTuple):
    """A rectangle in the drawing."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Rectangle") -> bool:
        """Return whether two rectangles share more than an edge."""
        is_beside = self.left >= other.right or other.left >= self.right
        return not is_beside and self.top < other.bottom and other.top < self.bottom


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis with round ends.

    Attributes:
        start: Position of its lower end in the drawing.
        end: Position of its upper end.
        values: Values of the ticks, ascending; the first and the last are the ends of the axis.
        texts: Text of each tick.
        is_logarithmic: Positions are proportional to the logarithm of the value.
    """

    start: float
    end: float
    values: tuple[float, ...]
    texts: tuple[str, ...]
    is_logarithmic: bool = False

    @classmethod
    def linear(cls, values: Iterable[float], *, start: float, end: float, count: int) -> "Axis":
        """Return a linear axis that covers values.

        Args:
            values: Finite numbers, at least one.
            start: Position of the lower end in the drawing.
            end: Position of the upper end.
            count: Approximate number of steps; a step is 1, 2, 2.5 or 5 times a power of ten.
        """
        numbers = list(values)
        low, high = min(numbers), max(numbers)
        if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
            margin = abs(high) / 2 or 1.0
            low, high = low - margin, high + margin
        rough = (high - low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * (1 - 1e-9))
        low = math.floor(low / step + 1e-9) * step
        steps = round((math.ceil(high / step - 1e-9) * step - low) / step)
        ticks = tuple(low + number * step for number in range(steps + 1))
        return cls(start=start, end=end, values=ticks, texts=_write_ticks(ticks, step))

    @classmethod
    def logarithmic(cls, values: Iterable[float], *, start: float, end: float) -> "Axis":
        """Return a logarithmic axis that covers values.

        Its ticks are 1, 2 and 5 times the powers of ten, or the powers alone over many decades.

        Args:
            values: Numbers above 0, at least one.
            start: Position of the lower end in the drawing.
            end: Position of the upper end.

        Raises:
            ValueError: If a value is not above 0.
        """
        numbers = list(values)
        low, high = min(numbers), max(numbers)
        if low <= 0:
            raise ValueError(f"a logarithmic axis needs values above 0, not {low:g}")
        first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
        digits = (1, 2, 5) if math.log10(high / low) <= _MANY_DECADES else (1,)
        marks = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
        # A value on a tick at either end gets room beyond it.
        below = max(index for index, mark in enumerate(marks) if mark < low)
        above = min(index for index, mark in enumerate(marks) if mark > high)
        ticks = tuple(marks[below : above + 1])
        texts = tuple(f"{tick:g}" for tick in ticks)
        return cls(start=start, end=end, values=ticks, texts=texts, is_logarithmic=True)

    @property
    def low(self) -> float:
        """The value at the lower end."""
        return self.values[0]

    @property
    def high(self) -> float:
        """The value at the upper end."""
        return self.values[-1]

    def position(self, value: float) -> float:
        """Return the position of a value in the drawing."""
        low, high = self.low, self.high
        if self.is_logarithmic:
            value, low, high = math.log10(value), math.log10(low), math.log10(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Return the position and the text of each tick."""
        return [
            (self.position(value), words)
            for value, words in zip(self.values, self.texts, strict=True)
        ]


def draw_axes(x_axis: Axis, y_axis: Axis, *, x_label: str) -> str:
    """Draw the grid, the ticks and the label of the horizontal axis."""
    left, right, bottom = x_axis.start, x_axis.end, y_axis.start
    parts = []
    for y, words in y_axis.ticks():
        parts.append(line(left, y, right, y, style="grid"))
        parts.append(text(left - 8, y + 4, words, text_anchor="end"))
    for x, words in x_axis.ticks():
        parts.append(line(x, bottom, x, bottom + 5, style="axis"))
        parts.append(text(x, bottom + 19, words, text_anchor="middle"))
    parts.append(line(left, bottom, right, bottom, style="axis"))
    parts.append(text((left + right) / 2, bottom + 38, x_label, text_anchor="middle"))
    return "".join(parts)


def draw_rows_axis(axis: Axis, *, top: float, bottom: float, label: str) -> str:
    """Draw a horizontal axis below rows, with a vertical grid line at each tick."""
    parts = []
    for x, words in axis.ticks():
        parts.append(line(x, top, x, bottom, style="grid"))
        parts.append(text(x, bottom + 17, words, text_anchor="middle"))
    middle = (axis.start + axis.end) / 2
    return "".join([*parts, text(middle, bottom + 35, label, text_anchor="middle")])


def place_labels(
    points: Sequence[tuple[float, float]], names: Sequence[str], *, radius: float, frame: Rectangle
) -> dict[int, tuple[float, float]]:
    """Place the names of points so that they cover neither a point nor each other.

    Args:
        points: Positions in the drawing. Names of earlier points are placed first.
        names: A name for each point.
        radius: Radius of the points.
        frame: Names stay inside it.

    Returns:
        The left end and the baseline of each name that has room, by the index of its point.
    """
    letter, height = 6.4, 11.0  # approximate size of a letter at 11 pixels
    taken = [Rectangle(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    placed: dict[int, tuple[float, float]] = {}
    for index, ((x, y), name) in enumerate(zip(points, names, strict=True)):
        width = letter * len(name)
        sides = ((x + 7, y), (x - 7 - width, y), (x - width / 2, y - 11), (x - width / 2, y + 11))
        corners = itertools.product((x + 5, x - 5 - width), (y - 9, y + 9))
        for left, middle in (*sides, *corners):
            box = Rectangle(left, middle - height / 2, left + width, middle + height / 2)
            is_inside = (
                left >= frame.left and box.right <= frame.right and box.bottom <= frame.bottom
            )
            if is_inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                placed[index] = (left, middle + 4)
                break
    return placed


def _write_ticks(values: Sequence[float], step: float) -> tuple[str, ...]:
    """Write each tick with as many digits as distinguish it from its neighbor."""
    top = max(map(abs, values))
    if top >= 1e5 or top < 1e-2:
        return tuple(f"{0.0 if abs(value) < step / 2 else value:.3g}" for value in values)
    # A step of 2.5 needs one more digit than its power of ten.
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    digits += int(abs(step * 10**digits - round(step * 10**digits)) > 1e-6)
    return tuple(f"{value:.{digits}f}" for value in values)

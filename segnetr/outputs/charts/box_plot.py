"""Box plots as inline SVG, colored by the page's style sheet."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segnetr.outputs.charts.axes import Axis, draw_rows_axis
from segnetr.outputs.charts.svg import circle, document, line, rectangle, shorten, text

MOST_BOXES = 16
_WIDTH, _TOP, _ROW, _BOTTOM = 560, 34, 30, 40
_LEFT, _RIGHT = 170, 20
_MOST_DOTS = 40
_MOST_LETTERS = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One box.

    Attributes:
        name: Name of the group of values.
        values: Finite numbers, at least one.
    """

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxChart:
    """Boxes below each other on one axis.

    Attributes:
        title: Heading.
        label: Label of the horizontal axis, with its unit.
        boxes: At most 16.
        is_share: The values are shares: the axis runs from 0 to 1.
    """

    title: str
    label: str
    boxes: Sequence[Box]
    is_share: bool


def draw_box_chart(chart: BoxChart) -> str:
    """Draw medians, quartiles, whiskers and outliers; all values of boxes of at most 40 values.

    Whiskers end at the last value within 1.5 interquartile ranges of the box.

    Raises:
        ValueError: If there is no box, or there are more than 16.

    Source:
        Tukey, Exploratory Data Analysis, 1977, section 2.
    """
    if not 0 < len(chart.boxes) <= MOST_BOXES:
        raise ValueError(f"{chart.title!r}: {len(chart.boxes)} boxes where 1 to {MOST_BOXES} fit")
    ends = [0.0, 1.0] if chart.is_share else [v for box in chart.boxes for v in box.values]
    axis = Axis.linear(ends, start=_LEFT, end=_WIDTH - _RIGHT, count=5)
    bottom = _TOP + _ROW * len(chart.boxes)
    parts = [
        text(12, 20, chart.title, style="chart-title"),
        draw_rows_axis(axis, top=_TOP, bottom=bottom, label=chart.label),
    ]
    for row, box in enumerate(chart.boxes):
        parts.append(_draw_box(box, axis, _TOP + _ROW * (row + 0.5)))
    label = f"{chart.title}: {'; '.join(_describe(box) for box in chart.boxes)}"
    return document(parts, width=_WIDTH, height=bottom + _BOTTOM, label=label)


def _draw_box(box: Box, axis: Axis, y: float) -> str:
    values = np.sort(np.asarray(box.values, dtype=np.float64))
    low, middle, high = np.percentile(values, (25, 50, 75))
    reach = 1.5 * (high - low)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    dots = values if len(values) <= _MOST_DOTS else values[~np.isin(values, inside)]
    left, right, center, first, last = (
        axis.position(float(value)) for value in (low, high, middle, inside[0], inside[-1])
    )
    name = f"{shorten(box.name, _MOST_LETTERS)} ({len(values)})"
    parts = [
        text(_LEFT - 10, y + 4, name, text_anchor="end"),
        line(first, y, last, y, style="axis"),
        rectangle(left, y - 8, max(right - left, 1), 16, style="bin"),
        line(center, y - 9, center, y + 9, style="curve line-b"),
    ]
    # Three alternating heights keep equal values apart.
    for index, value in enumerate(dots):
        x = axis.position(float(value))
        parts.append(circle(x, y + (index % 3 - 1) * 4, 2, style="dot line-a"))
    return "".join(parts)


def _describe(box: Box) -> str:
    low, middle, high = np.percentile(box.values, (25, 50, 75))
    return f"{box.name} median {middle:.3g}, quartiles {low:.3g} to {high:.3g} ({len(box.values)})"

"""Box plots as inline SVG, colored by the page's style sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from segnetr.outputs.charts.curves import Axis

MOST_BOXES = 16
_WIDTH, _TOP, _ROW, _BOTTOM = 560, 34, 30, 40
_LEFT, _RIGHT = 170, 20
_MOST_DOTS = 40
_MOST_LETTERS = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One box.

    Attributes:
        name: What the values are of.
        values: One finite number at least.
    """

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxChart:
    """Boxes below each other on one axis.

    Attributes:
        title: What is shown.
        label: What runs to the right, with its unit.
        boxes: At most 16.
        is_share: The values are shares: the axis runs from 0 to 1.
    """

    title: str
    label: str
    boxes: Sequence[Box]
    is_share: bool


def draw_box_chart(chart: BoxChart) -> str:
    """Draw medians, quartiles, whiskers and outliers; all values of a box of forty or fewer.

    Whiskers end at the last value within 1.5 quartile distances of the box.

    Raises:
        ValueError: If there is no box or are too many.

    Source:
        Tukey, Exploratory Data Analysis, 1977, section 2.
    """
    if not 0 < len(chart.boxes) <= MOST_BOXES:
        raise ValueError(f"{chart.title!r}: {len(chart.boxes)} boxes where 1 to {MOST_BOXES} fit")
    ends = [0.0, 1.0] if chart.is_share else [v for box in chart.boxes for v in box.values]
    axis = Axis.cover(ends, start=_LEFT, end=_WIDTH - _RIGHT, count=5)
    bottom = _TOP + _ROW * len(chart.boxes)
    parts = [f'<text class="chart-title" x="12" y="20">{escape(chart.title)}</text>']
    for x, text in axis.ticks():
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>'
            f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>'
        )
    parts.append(
        f'<text class="tick" x="{(_LEFT + _WIDTH - _RIGHT) / 2:g}" y="{bottom + 35}" '
        f'text-anchor="middle">{escape(chart.label)}</text>'
    )
    parts += [
        _draw_box(box, axis, _TOP + _ROW * (place + 0.5)) for place, box in enumerate(chart.boxes)
    ]
    words = escape(f"{chart.title}: " + "; ".join(_describe(box) for box in chart.boxes))
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {bottom + _BOTTOM}" role="img" '
        f'aria-label="{words}"><title>{words}</title>{"".join(parts)}</svg>'
    )


def _draw_box(box: Box, axis: Axis, y: float) -> str:
    values = np.sort(np.asarray(box.values, dtype=np.float64))
    low, middle, high = np.percentile(values, (25, 50, 75))
    reach = 1.5 * (high - low)
    inside = values[(values >= low - reach) & (values <= high + reach)]
    shown = values if len(values) <= _MOST_DOTS else values[~np.isin(values, inside)]
    name = box.name if len(box.name) <= _MOST_LETTERS else f"{box.name[: _MOST_LETTERS - 1]}…"
    left, right, center = (axis.place(float(value)) for value in (low, high, middle))
    parts = [
        f'<text class="tick" x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">'
        f"{escape(name)} ({len(values)})</text>",
        f'<line class="axis" x1="{axis.place(float(inside[0])):.1f}" '
        f'x2="{axis.place(float(inside[-1])):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>',
        f'<rect class="bin" x="{left:.1f}" y="{y - 8:.1f}" width="{max(right - left, 1):.1f}" '
        'height="16"/>',
        f'<line class="curve line-b" x1="{center:.1f}" x2="{center:.1f}" y1="{y - 9:.1f}" '
        f'y2="{y + 9:.1f}"/>',
    ]
    # Spread up and down in turns, so that equal values are seen.
    parts += [
        f'<circle class="dot line-a" cx="{axis.place(float(value)):.1f}" '
        f'cy="{y + (place % 3 - 1) * 4:.1f}" r="2"/>'
        for place, value in enumerate(shown)
    ]
    return "".join(parts)


def _describe(box: Box) -> str:
    low, middle, high = np.percentile(box.values, (25, 50, 75))
    return f"{box.name} median {middle:.3g}, quartiles {low:.3g} to {high:.3g} ({len(box.values)})"

"""Dot plots as inline SVG: paired scores of two runs, Bland-Altman plots."""

from collections.abc import Sequence
from dataclasses import dataclass

from segnetr.outputs.charts.axes import Axis, draw_axes
from segnetr.outputs.charts.svg import circle, document, line, text

_WIDTH, _HEIGHT = 460, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 34, 54, 46
_MOST_DOTS = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One point of a dot plot or a scatter plot.

    Attributes:
        name: Tooltip; a scatter plot also writes it next to the dot.
        x: Horizontal value.
        y: Vertical value.
        marked: Draw it in another color, as the reference of the others.
    """

    name: str
    x: float
    y: float
    marked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DotChart:
    """Dots with reference lines.

    Attributes:
        title: Heading.
        x_label: Label of the horizontal axis, with its unit.
        y_label: Label of the vertical axis, with its unit.
        dots: Finite points, at least one.
        levels: Horizontal dashed lines: name and value of each.
        diagonal: Draw the line of equal values; both axes then have one range.
        words: Description of the chart in words.
    """

    title: str
    x_label: str
    y_label: str
    dots: Sequence[Dot]
    levels: Sequence[tuple[str, float]] = ()
    diagonal: bool = False
    words: str


def draw_dot_chart(chart: DotChart) -> str:
    """Draw a chart as an `<svg>` element. Of more than 1500 dots an even selection is drawn.

    Raises:
        ValueError: If there is no dot.
    """
    if not chart.dots:
        raise ValueError(f"{chart.title!r} has no dot")
    xs = [dot.x for dot in chart.dots]
    ys = [*(dot.y for dot in chart.dots), *(height for _, height in chart.levels)]
    if chart.diagonal:
        xs = ys = xs + ys
    x_axis = Axis.linear(xs, start=_LEFT, end=_WIDTH - _RIGHT, count=5)
    y_axis = Axis.linear(ys, start=_HEIGHT - _BOTTOM, end=_TOP, count=5)
    parts = [
        text(_LEFT, 20, chart.title, style="chart-title"),
        text(_LEFT, 42, chart.y_label),
        draw_axes(x_axis, y_axis, x_label=chart.x_label),
    ]
    if chart.diagonal:
        parts.append(line(x_axis.start, y_axis.start, x_axis.end, y_axis.end, style="ideal"))
    for name, height in chart.levels:
        y = y_axis.position(height)
        parts.append(line(x_axis.start, y, x_axis.end, y, style="ideal"))
        parts.append(text(x_axis.end, y - 4, name, text_anchor="end"))
    stride = -(-len(chart.dots) // _MOST_DOTS)
    for dot in chart.dots[::stride]:
        x, y = x_axis.position(dot.x), y_axis.position(dot.y)
        parts.append(circle(x, y, 4, style="dot line-a", tooltip=dot.name, opacity="0.75"))
    return document(parts, width=_WIDTH, height=_HEIGHT, label=f"{chart.title}: {chart.words}")

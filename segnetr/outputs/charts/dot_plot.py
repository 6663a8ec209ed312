"""Dots between two axes, with lines to judge them by: cases of two networks, Bland-Altman."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from segnetr.outputs.charts.curves import Axis, draw_axes

_WIDTH, _HEIGHT = 460, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 34, 54, 46
_MOST_DOTS = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One case.

    Attributes:
        name: Shown where the pointer rests on it.
        x: To the right.
        y: Upwards.
    """

    name: str
    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DotChart:
    """Dots and what they are judged by.

    Attributes:
        title: What is shown.
        x_label: What runs to the right, with its unit.
        y_label: What runs upwards, with its unit.
        dots: Finite places, one at least.
        levels: Horizontal dashed lines: their name and their height.
        diagonal: Draw where both axes are equal; both then have one range.
        words: The image in words.
    """

    title: str
    x_label: str
    y_label: str
    dots: Sequence[Dot]
    levels: Sequence[tuple[str, float]] = ()
    diagonal: bool = False
    words: str


def draw_dot_chart(chart: DotChart) -> str:
    """Draw a chart as an `<svg>` element; of more than 1500 dots an even choice.

    Raises:
        ValueError: If there is no dot.
    """
    if not chart.dots:
        raise ValueError(f"{chart.title!r} has no dot")
    xs, ys = [dot.x for dot in chart.dots], [dot.y for dot in chart.dots]
    ys = ys + [height for _, height in chart.levels]
    if chart.diagonal:
        xs = ys = xs + ys
    x_axis = Axis.cover(xs, start=_LEFT, end=_WIDTH - _RIGHT, count=5)
    y_axis = Axis.cover(ys, start=_HEIGHT - _BOTTOM, end=_TOP, count=5)
    parts = [
        f'<text class="chart-title" x="{_LEFT}" y="20">{escape(chart.title)}</text>',
        f'<text class="tick" x="{_LEFT}" y="42">{escape(chart.y_label)}</text>',
        draw_axes(x_axis, y_axis, x_label=chart.x_label),
    ]
    if chart.diagonal:
        parts.append(
            f'<line class="ideal" x1="{x_axis.place(x_axis.low):.1f}" '
            f'y1="{y_axis.place(x_axis.low):.1f}" x2="{x_axis.place(x_axis.high):.1f}" '
            f'y2="{y_axis.place(x_axis.high):.1f}"/>'
        )
    for name, height in chart.levels:
        parts.append(_draw_level(name, y_axis.place(height)))
    stride = -(-len(chart.dots) // _MOST_DOTS)
    parts += [_draw_dot(dot, x_axis, y_axis) for dot in chart.dots[::stride]]
    words = escape(f"{chart.title}: {chart.words}")
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{words}">'
        f"<title>{words}</title>{''.join(parts)}</svg>"
    )


def _draw_dot(dot: Dot, x_axis: Axis, y_axis: Axis) -> str:
    return (
        f'<circle class="dot line-a" opacity="0.75" cx="{x_axis.place(dot.x):.1f}" '
        f'cy="{y_axis.place(dot.y):.1f}" r="4"><title>{escape(dot.name)}</title></circle>'
    )


def _draw_level(name: str, y: float) -> str:
    return (
        f'<line class="ideal" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{y - 4:.1f}" text-anchor="end">'
        f"{escape(name)}</text>"
    )

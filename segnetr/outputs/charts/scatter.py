"""Scatter plots with names as an SVG file: quality against cost. No script, no address."""

from collections.abc import Sequence
from dataclasses import dataclass

from segnetr.outputs.charts.axes import Axis, Rectangle, draw_axes, place_labels
from segnetr.outputs.charts.dot_plot import Dot
from segnetr.outputs.charts.svg import circle, element, file_document, text

_WIDTH, _HEIGHT = 720, 540
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 24, 40, 50
_RADIUS = 4
_STYLE = (
    ".grid,.axis{stroke:#ddd} .chart-title{font-size:14px} .tick,.label{font-size:11px}"
    " .dot{fill:#1f5fa8} .marked{fill:#b3261e}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScatterPanel:
    """One scatter plot.

    Attributes:
        title: Heading.
        x_label: Label of the horizontal axis, with its unit. The axis is logarithmic.
        y_label: Label of the vertical axis.
        dots: At least one, with x above 0. Names are written where there is room; marked dots
            are named first.
    """

    title: str
    x_label: str
    y_label: str
    dots: Sequence[Dot]


def draw_scatter_file(panels: Sequence[ScatterPanel]) -> str:
    """Return an SVG file with panels next to each other.

    Raises:
        ValueError: If a panel has no dot, or a dot has x not above 0.
    """
    return file_document(
        (
            element("g", _draw_panel(panel), transform=f"translate({_WIDTH * index} 0)")
            for index, panel in enumerate(panels)
        ),
        width=_WIDTH * len(panels),
        height=_HEIGHT,
        label="; ".join(panel.title for panel in panels),
        style_sheet=_STYLE,
    )


def _draw_panel(panel: ScatterPanel) -> str:
    if not panel.dots or any(dot.x <= 0 for dot in panel.dots):
        raise ValueError(f"{panel.title!r}: dots with a cost above 0 are needed")
    dots = sorted(panel.dots, key=lambda dot: not dot.marked)
    x_axis = Axis.logarithmic((dot.x for dot in dots), start=_LEFT, end=_WIDTH - _RIGHT)
    ys = [dot.y for dot in dots]
    y_axis = Axis.linear(
        [min(ys) - 0.01, max(ys) + 0.01], start=_HEIGHT - _BOTTOM, end=_TOP, count=5
    )
    parts = [
        text(_WIDTH / 2, 22, panel.title, style="chart-title", text_anchor="middle"),
        text(10, _TOP - 8, panel.y_label),
        draw_axes(x_axis, y_axis, x_label=panel.x_label),
    ]
    points = [(x_axis.position(dot.x), y_axis.position(dot.y)) for dot in dots]
    for dot, (x, y) in zip(dots, points, strict=True):
        style = "marked" if dot.marked else "dot"
        tooltip = f"{dot.name}: {dot.x:.4g}, {dot.y:.4f}"
        parts.append(circle(x, y, _RADIUS, style=style, tooltip=tooltip))
    frame = Rectangle(_LEFT, 0, _WIDTH, _HEIGHT - _BOTTOM)
    names = [dot.name for dot in dots]
    for index, (x, y) in place_labels(points, names, radius=_RADIUS, frame=frame).items():
        parts.append(text(x, y, names[index], style="label"))
    return "".join(parts)

"""Line charts of a training as inline SVG, colored by the page's style sheet."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segnetr.metrics.registry import METRICS
from segnetr.outputs.charts.axes import Axis, draw_axes
from segnetr.outputs.charts.svg import circle, document, element, line, text

Point = tuple[float, float]

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 40, 46
_MOST_POINTS = 240
_MOST_DOTS = 30
# Classes of the style sheet; the colors also differ in lightness.
_STYLES = ("line-a", "line-b", "line-c", "line-d")
_TITLES = {
    "loss": "Loss",
    **{name: spec.title for name, spec in METRICS.items()},
    "lr": "Learning rate",
    "grad_norm": "Gradient norm",
}
_RENAMED = {"total": "loss"}
_NOT_CURVES = ("step", "phase", "epoch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve.

    Attributes:
        name: Name in the legend.
        points: (x, y) in ascending x; non-finite points are not drawn.
    """

    name: str
    points: Sequence[Point]

    @property
    def finite(self) -> list[Point]:
        """The points with finite coordinates."""
        return [point for point in self.points if all(map(math.isfinite, point))]


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChart:
    """Curves that share their axes.

    Attributes:
        title: Heading.
        lines: One to four curves.
        x_label: Label of the horizontal axis.
        mark_best: Mark the highest point of the first line.
    """

    title: str
    lines: Sequence[Line]
    x_label: str = "step"
    mark_best: bool = False


def chart_training_log(rows: Sequence[Mapping[str, object]]) -> list[LineChart]:
    """Return one chart for each quantity in the rows of `metrics.jsonl`.

    Args:
        rows: Each with "step", optionally "phase" ("train", "validation"), and numbers by name;
            "total" is the loss.

    Returns:
        Known quantities (loss, Dice, learning rate, ...) first, then the others in their order.
    """
    points: dict[str, dict[str, list[Point]]] = {}
    for row in rows:
        phase = {"train": "training"}.get(str(row.get("phase", "")), str(row.get("phase", "")))
        for key, value in row.items():
            if key in _NOT_CURVES or not _is_finite_number(value):
                continue
            name = _RENAMED.get(key, key)
            curves = points.setdefault(name, {})
            curves.setdefault(phase or name, []).append(
                (float(str(row["step"])), float(str(value)))
            )
    order = [*(name for name in _TITLES if name in points), *points]
    return [
        LineChart(
            title=_TITLES.get(name, name.replace("_", " ")),
            lines=[Line(name=phase, points=curve) for phase, curve in points[name].items()],
            mark_best=name in METRICS and METRICS[name].higher_is_better,
        )
        for name in dict.fromkeys(order)
    ]


def draw_line_chart(chart: LineChart) -> str:
    """Draw a chart as an `<svg>` element.

    Curves of more than 240 points are drawn as the means of 240 equal stretches.

    Raises:
        ValueError: If no point is finite, or there are more than four lines.
    """
    if len(chart.lines) > len(_STYLES):
        raise ValueError(f"a chart holds at most {len(_STYLES)} lines, not {len(chart.lines)}")
    curves = [_thin(curve.finite) for curve in chart.lines]
    points = [point for curve in curves for point in curve]
    if not points:
        raise ValueError(f"chart {chart.title!r} has no finite point")
    x_axis = Axis.linear((x for x, _ in points), start=_LEFT, end=_WIDTH - _RIGHT, count=6)
    y_axis = Axis.linear((y for _, y in points), start=_HEIGHT - _BOTTOM, end=_TOP, count=5)
    parts = [draw_axes(x_axis, y_axis, x_label=chart.x_label)]
    for curve, style in zip(curves, _STYLES, strict=False):
        parts.append(_draw_curve(curve, x_axis, y_axis, style=style))
    if chart.mark_best:
        parts.append(_draw_best(chart.lines[0].finite, x_axis, y_axis, x_label=chart.x_label))
    parts.append(_draw_legend(chart))
    return document(parts, width=_WIDTH, height=_HEIGHT, label=describe_line_chart(chart))


def describe_line_chart(chart: LineChart) -> str:
    """Return the first and the last value of each curve in words."""
    ends = []
    for curve in chart.lines:
        if points := curve.finite:
            (first, begin), (last, end) = points[0], points[-1]
            ends.append(
                f"{curve.name} from {begin:.4g} at {chart.x_label} {first:g}"
                f" to {end:.4g} at {chart.x_label} {last:g}"
            )
    return f"{chart.title}: {'; '.join(ends)}"


def _is_finite_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _thin(points: Sequence[Point]) -> list[Point]:
    if len(points) <= _MOST_POINTS:
        return list(points)
    cuts = [number * len(points) // _MOST_POINTS for number in range(_MOST_POINTS + 1)]
    stretches = [points[a:b] for a, b in itertools.pairwise(cuts)]
    return [
        (sum(x for x, _ in stretch) / len(stretch), sum(y for _, y in stretch) / len(stretch))
        for stretch in stretches
    ]


def _draw_curve(points: Sequence[Point], x_axis: Axis, y_axis: Axis, *, style: str) -> str:
    positions = [(x_axis.position(x), y_axis.position(y)) for x, y in points]
    if not positions:
        return ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in positions)
    curve = element("polyline", class_=f"curve {style}", points=path)
    # Few points are occasional measurements, so each is marked.
    dots = positions if len(positions) <= _MOST_DOTS else []
    return curve + "".join(circle(x, y, 2.5, style=f"dot {style}") for x, y in dots)


def _draw_best(points: Sequence[Point], x_axis: Axis, y_axis: Axis, *, x_label: str) -> str:
    if not points:
        return ""
    step, value = max(points, key=lambda point: (point[1], -point[0]))
    x, y = x_axis.position(step), y_axis.position(value)
    anchor = "end" if x > (x_axis.start + x_axis.end) / 2 else "start"
    words = f"best {value:.3f} at {x_label} {step:g}"
    return circle(x, y, 5, style="best") + text(x, y + 22, words, style="label", text_anchor=anchor)


def _draw_legend(chart: LineChart) -> str:
    parts = [text(_LEFT, 20, chart.title, style="chart-title")]
    right = float(_WIDTH - _RIGHT)
    for curve, style in reversed(list(zip(chart.lines, _STYLES, strict=False))):
        width = 7.0 * len(curve.name)
        parts.append(text(right - width, 20, curve.name))
        parts.append(line(right - width - 26, 16, right - width - 6, 16, style=f"curve {style}"))
        right -= width + 42
    return "".join(parts)

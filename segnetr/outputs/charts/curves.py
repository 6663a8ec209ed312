"""The course of a training as charts: inline SVG without script, style sheet or address."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 40, 46
_MOST_POINTS = 240
# Classes, colored by the page's style sheet; colors also differ in lightness.
_LINES = ("line-a", "line-b", "line-c", "line-d")
_TITLES = {
    "loss": "Loss",
    "dice": "Dice",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auroc": "AUROC",
    "f1": "F1",
    "lr": "Learning rate",
    "grad_norm": "Gradient norm",
}
_RENAMED = {"total": "loss"}
_HIGHER_IS_BETTER = ("dice", "accuracy", "balanced_accuracy", "auroc", "f1")
_NO_CURVES = ("step", "phase", "epoch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve.

    Attributes:
        name: For the legend.
        points: (x, y) in rising x; values that are not finite are left out.
    """

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Curves that share their axes.

    Attributes:
        title: What is shown.
        lines: One to four curves.
        x_label: What runs along the horizontal axis.
        mark_best: Mark the highest point of the first line.
    """

    title: str
    lines: Sequence[Line]
    x_label: str = "step"
    mark_best: bool = False


def chart_rows(rows: Sequence[Mapping[str, object]]) -> list[Chart]:
    """Turn the lines of `metrics.jsonl` into charts, one for each name.

    Args:
        rows: Each with "step", perhaps "phase" ("train", "validation"), and numbers by name;
            "total" is the loss.

    Returns:
        Loss, Dice and learning rate first, then the other names as they come.
    """
    points: dict[str, dict[str, list[Point]]] = {}
    for row in rows:
        phase = {"train": "training"}.get(str(row.get("phase", "")), str(row.get("phase", "")))
        for key, value in row.items():
            if key in _NO_CURVES or not _is_finite_number(value):
                continue
            name = _RENAMED.get(key, key)
            lines = points.setdefault(name, {})
            lines.setdefault(phase or name, []).append((float(str(row["step"])), float(str(value))))
    order = [*(name for name in _TITLES if name in points), *points]
    return [
        Chart(
            title=_TITLES.get(name, name.replace("_", " ")),
            lines=[Line(name=phase, points=line) for phase, line in points[name].items()],
            mark_best=name in _HIGHER_IS_BETTER,
        )
        for name in dict.fromkeys(order)
    ]


def draw_chart(chart: Chart) -> str:
    """Draw a chart as an `<svg>` element for an HTML page.

    Long curves are drawn as means of equal stretches, 240 at most.

    Raises:
        ValueError: If no point is finite, or there are more than four lines.
    """
    if len(chart.lines) > len(_LINES):
        raise ValueError(f"a chart holds at most {len(_LINES)} lines, not {len(chart.lines)}")
    lines = [
        Line(name=line.name, points=_thin([p for p in line.points if all(map(math.isfinite, p))]))
        for line in chart.lines
    ]
    shown = [point for line in lines for point in line.points]
    if not shown:
        raise ValueError(f"chart {chart.title!r} has no finite point")
    x_axis = Axis.cover([x for x, _ in shown], start=_LEFT, end=_WIDTH - _RIGHT, count=6)
    y_axis = Axis.cover([y for _, y in shown], start=_HEIGHT - _BOTTOM, end=_TOP, count=5)
    parts = [draw_axes(x_axis, y_axis, x_label=chart.x_label)]
    for line, style in zip(lines, _LINES, strict=False):
        parts.append(_draw_line(line, x_axis, y_axis, style=style))
    if chart.mark_best:
        parts.append(_draw_best(chart.lines[0], x_axis, y_axis, x_label=chart.x_label))
    parts.append(_draw_legend(chart))
    words = escape(describe_chart(chart))
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{words}">'
        f"<title>{words}</title>{''.join(parts)}</svg>"
    )


def _is_finite_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def describe_chart(chart: Chart) -> str:
    """Say in words where each curve begins and ends."""
    ends = []
    for line in chart.lines:
        known = [point for point in line.points if all(map(math.isfinite, point))]
        if known:
            (first, begin), (last, end) = known[0], known[-1]
            ends.append(
                f"{line.name} from {begin:.4g} at {chart.x_label} {first:g}"
                f" to {end:.4g} at {chart.x_label} {last:g}"
            )
    return f"{chart.title}: {'; '.join(ends)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis with round ends.

    Attributes:
        low: Value at its start.
        high: Value at its end.
        step: Between two ticks.
        start: Place of its start in the drawing.
        end: Place of its end.
    """

    low: float
    high: float
    step: float
    start: float
    end: float

    @classmethod
    def cover(cls, values: Sequence[float], *, start: float, end: float, count: int) -> "Axis":
        """Choose round ends, with ticks at 1, 2, 2.5 or 5 times a power of ten."""
        low, high = min(values), max(values)
        if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
            reach = abs(high) / 2 or 1.0
            low, high = low - reach, high + reach
        rough = (high - low) / count
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * (1 - 1e-9))
        return cls(
            low=math.floor(low / step + 1e-9) * step,
            high=math.ceil(high / step - 1e-9) * step,
            step=step,
            start=start,
            end=end,
        )

    def place(self, value: float) -> float:
        """Give the place of a value in the drawing."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """Positions and texts; a text has as many digits as tell it from its neighbor."""
        count = round((self.high - self.low) / self.step)
        values = [self.low + number * self.step for number in range(count + 1)]
        top = max(map(abs, values))
        if top >= 1e5 or top < 1e-2:
            texts = [f"{0.0 if abs(v) < self.step / 2 else v:.3g}" for v in values]
        else:
            # 2.5 needs one digit more than its power of ten says.
            digits = max(0, -math.floor(math.log10(self.step) + 1e-9))
            digits += int(abs(self.step * 10**digits - round(self.step * 10**digits)) > 1e-6)
            texts = [f"{v:.{digits}f}" for v in values]
        return [(self.place(v), text) for v, text in zip(values, texts, strict=True)]


def _thin(points: Sequence[Point]) -> list[Point]:
    if len(points) <= _MOST_POINTS:
        return list(points)
    cuts = [number * len(points) // _MOST_POINTS for number in range(_MOST_POINTS + 1)]
    slices = [points[a:b] for a, b in itertools.pairwise(cuts)]
    return [
        (sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part))
        for part in slices
    ]


def draw_axes(x_axis: Axis, y_axis: Axis, *, x_label: str) -> str:
    """Draw grid, ticks and the label of the horizontal axis."""
    left, right, bottom = x_axis.start, x_axis.end, y_axis.start
    parts = []
    for y, text in y_axis.ticks():
        parts.append(f'<line class="grid" x1="{left:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8:g}" y="{y + 4:.1f}" '
                     f'text-anchor="end">{text}</text>')  # fmt: skip
    for x, text in x_axis.ticks():
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom:g}" '
                     f'y2="{bottom + 5:g}"/>')  # fmt: skip
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 19:g}" '
                     f'text-anchor="middle">{text}</text>')  # fmt: skip
    parts.append(f'<line class="axis" x1="{left:g}" x2="{right:g}" y1="{bottom:g}" '
                 f'y2="{bottom:g}"/>')  # fmt: skip
    parts.append(f'<text class="tick" x="{(left + right) / 2:g}" y="{bottom + 38:g}" '
                 f'text-anchor="middle">{escape(x_label)}</text>')  # fmt: skip
    return "".join(parts)


def _draw_line(line: Line, x_axis: Axis, y_axis: Axis, *, style: str) -> str:
    places = [(x_axis.place(x), y_axis.place(y)) for x, y in line.points]
    if not places:
        return ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    synthetic = f'<polyline class="curve {style}" points="{path}"/>'
    # Few points are measurements made now and then: show where they are.
    dots = places if len(places) <= 30 else []
    return synthetic + "".join(
        f'<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in dots
    )


def _draw_best(line: Line, x_axis: Axis, y_axis: Axis, *, x_label: str) -> str:
    known = [point for point in line.points if all(map(math.isfinite, point))]
    if not known:
        return ""
    step, value = max(known, key=lambda point: (point[1], -point[0]))
    x, y = x_axis.place(step), y_axis.place(value)
    anchor = "end" if x > (x_axis.start + x_axis.end) / 2 else "start"
    return (
        f'<circle class="best" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        f'<text class="label" x="{x:.1f}" y="{y + 22:.1f}" text-anchor="{anchor}">'
        f"best {value:.3f} at {escape(x_label)} {step:g}</text>"
    )


def _draw_legend(chart: Chart) -> str:
    parts = [f'<text class="chart-title" x="{_LEFT}" y="20">{escape(chart.title)}</text>']
    right = float(_WIDTH - _RIGHT)
    for line, style in reversed(list(zip(chart.lines, _LINES, strict=False))):
        width = 7.0 * len(line.name)
        parts.append(
            f'<text class="tick" x="{right - width:g}" y="20">{escape(line.name)}</text>'
            f'<line class="curve {style}" x1="{right - width - 26:g}" x2="{right - width - 6:g}" '
            'y1="16" y2="16"/>'
        )
        right -= width + 42
    return "".join(parts)

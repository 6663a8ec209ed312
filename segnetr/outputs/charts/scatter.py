"""Dots with names: a image of quality against cost, as SVG without script or address."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

_WIDTH, _HEIGHT = 720, 540
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 24, 40, 50
_MARGIN = 0.06  # free share of an axis at both ends
_RADIUS = 4
_LETTER, _LINE = 6.4, 11.0  # width and height of a letter of a name, about


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One thing.

    Attributes:
        name: Stands beside the dot where there is room, and in any case under the mouse.
        x: Cost, above 0; the axis is logarithmic.
        y: Quality.
        marked: Drawn in another color, as what the others are compared with.
    """

    name: str
    x: float
    y: float
    marked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One image of dots.

    Attributes:
        title: What is shown.
        x_label: What runs to the right, with its unit.
        y_label: What runs upwards.
        dots: One at least.
    """

    title: str
    x_label: str
    y_label: str
    dots: Sequence[Dot]


class _Box(NamedTuple):
    """A rectangle of the image."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "_Box") -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom


def draw_panels(panels: Sequence[Panel]) -> str:
    """Draw panels side by side, as a whole SVG file.

    Raises:
        ValueError: If a panel has no dot, or a cost is not above 0.
    """
    width = _WIDTH * len(panels)
    parts = [
        f'<g transform="translate({_WIDTH * index} 0)">{_draw_panel(panel)}</g>'
        for index, panel in enumerate(panels)
    ]
    words = escape("; ".join(panel.title for panel in panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" '
        f'width="{width}" height="{_HEIGHT}" role="img" font-family="sans-serif" font-size="11">'
        f"<title>{words}</title>"
        f'<rect width="{width}" height="{_HEIGHT}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _draw_panel(panel: Panel) -> str:
    if not panel.dots or any(dot.x <= 0 for dot in panel.dots):
        raise ValueError(f"{panel.title!r}: dots with a cost above 0 are needed")
    xs, ys = [math.log10(dot.x) for dot in panel.dots], [dot.y for dot in panel.dots]
    left, right = _spread(min(xs), max(xs), least=0.3)
    low, high = _spread(min(ys), max(ys), least=0.02)

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - (y - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_text(_WIDTH / 2, 22, panel.title, anchor="middle", size=14)]
    parts += [_text(_WIDTH / 2, _HEIGHT - 12, panel.x_label, anchor="middle")]
    parts += [_text(10, _TOP - 8, panel.y_label)]
    for mark in _logarithmic_marks(left, right):
        x, y = place(math.log10(mark), low)
        parts.append(_line(x, _TOP, x, y))
        parts.append(_text(x, y + 16, f"{mark:g}", anchor="middle"))
    for step in range(5):
        value = low + (high - low) * step / 4
        x, y = place(left, value)
        parts.append(_line(x, y, _WIDTH - _RIGHT, y))
        parts.append(_text(x - 6, y + 4, f"{value:.3f}", anchor="end"))
    places = [place(x, dot.y) for dot, x in zip(panel.dots, xs, strict=True)]
    parts += [_dot(dot, *where) for dot, where in zip(panel.dots, places, strict=True)]
    return "".join([*parts, *_name_dots(panel.dots, places)])


def _name_dots(dots: Sequence[Dot], places: Sequence[tuple[float, float]]) -> list[str]:
    """Write names where they cover neither a dot nor each other; marked dots choose first."""
    taken = [_Box(x - _RADIUS, y - _RADIUS, x + _RADIUS, y + _RADIUS) for x, y in places]
    names = []
    for index in sorted(range(len(dots)), key=lambda index: not dots[index].marked):
        (x, y), name = places[index], dots[index].name
        width = _LETTER * len(name)
        for left, middle in (
            (x + 7, y),
            (x - 7 - width, y),
            (x - width / 2, y - 11),
            (x - width / 2, y + 11),
            (x + 5, y - 9),
            (x + 5, y + 9),
            (x - 5 - width, y - 9),
            (x - 5 - width, y + 9),
        ):
            box = _Box(left, middle - _LINE / 2, left + width, middle + _LINE / 2)
            inside = left >= _LEFT and box.right <= _WIDTH and box.bottom <= _HEIGHT - _BOTTOM
            if inside and not any(box.meets(other) for other in taken):
                taken.append(box)
                names.append(_text(left, middle + 4, name))
                break
    return names


def _spread(low: float, high: float, *, least: float) -> tuple[float, float]:
    """Leave room at both ends, and some where all values are one."""
    free = max(_MARGIN * (high - low), (least - (high - low)) / 2)
    return low - free, high + free


def _logarithmic_marks(left: float, right: float) -> list[float]:
    marks = [
        digit * 10.0**power
        for power in range(math.floor(left), math.ceil(right) + 1)
        for digit in (1, 2, 5)
    ]
    return [mark for mark in marks if left <= math.log10(mark) <= right]


def _dot(dot: Dot, x: float, y: float) -> str:
    color = "#b3261e" if dot.marked else "#1f5fa8"
    words = escape(f"{dot.name}: {dot.x:.4g}, {dot.y:.4f}")
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}" fill="{color}">'
        f"<title>{words}</title></circle>"
    )


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd" '
        'stroke-width="1"/>'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "", size: int = 11) -> str:
    where = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}"{where}>{escape(text)}</text>'

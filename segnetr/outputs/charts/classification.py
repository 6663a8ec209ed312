"""Confusions and calibration as inline SVG, colored by the page's style sheet."""

from collections.abc import Sequence
from html import escape

from segnetr.metrics.classification_summary import CalibrationBin

_MOST_NUMBERS = 12
_MOST_NAMES = 40
MOST_CLASSES = 200
"""Classes above which a image of confusions shows nothing any more."""

_SIDE = 440
_MARGIN = 150
_PLOT, _LEFT, _TOP, _BOTTOM = 360, 52, 16, 48


def draw_confusions(table: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Draw true classes (rows) against decided ones (columns), shaded by the share of the row.

    Numbers stand in the cells of up to twelve classes, names beside up to forty.

    Raises:
        ValueError: If there are more than `MOST_CLASSES`.
    """
    count = len(classes)
    if count > MOST_CLASSES:
        raise ValueError(f"{count} classes are too many for a image")
    cell = _SIDE / count
    left = _MARGIN if count <= _MOST_NAMES else 30
    parts = [f'<rect class="cell-frame" x="{left}" y="30" width="{_SIDE}" height="{_SIDE}"/>']
    for row, counts in enumerate(table):
        total = sum(counts)
        for column, number in enumerate(counts):
            if number:
                x, y = left + column * cell, 30 + row * cell
                parts.append(_draw_cell(x, y, cell, number, number / total, numbers=count))
    parts.append(
        f'<text class="tick" x="{left + _SIDE / 2:g}" y="18" text-anchor="middle">decided</text>'
    )
    height = _SIDE + 62
    if count <= _MOST_NAMES:
        names, longest = _draw_names(classes, cell, left)
        parts.append(names)
        height += longest
    words = escape(_describe_confusions(table, classes))
    return (
        f'<svg class="chart confusions" viewBox="0 0 {left + _SIDE + 10} {height}" role="img" '
        f'aria-label="{words}"><title>{words}</title>{"".join(parts)}</svg>'
    )


def draw_reliability(bins: Sequence[CalibrationBin], *, what: str = "cases") -> str:
    """Draw how often what was said with a confidence is true, above how often it was said.

    Args:
        bins: The bins.
        what: What is counted in them.
    """
    right, bottom = _LEFT + _PLOT, _TOP + _PLOT
    parts = []
    for tenths in range(0, 11, 2):
        x, y = _LEFT + _PLOT * tenths / 10, bottom - _PLOT * tenths / 10
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:g}" y2="{y:g}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:g}" text-anchor="end">'
                     f"{tenths / 10:.1f}</text>")  # fmt: skip
        parts.append(f'<text class="tick" x="{x:g}" y="{bottom + 18}" text-anchor="middle">'
                     f"{tenths / 10:.1f}</text>")  # fmt: skip
    most = max((bin_.count for bin_ in bins), default=0)
    for bin_ in bins:
        if bin_.frequency is None or bin_.confidence is None:
            continue
        parts.append(_draw_bin(bin_, bottom, most))
    parts.append(f'<line class="ideal" x1="{_LEFT}" y1="{bottom}" x2="{right}" y2="{_TOP}"/>')
    parts.append(f'<text class="tick" x="{_LEFT + _PLOT / 2:g}" y="{bottom + 38}" '
                 'text-anchor="middle">confidence; larger dots: more '
                 f"{escape(what)}</text>")  # fmt: skip
    has_foreground = [b for b in bins if b.frequency is not None]
    words = escape(
        "Calibration: "
        + "; ".join(
            f"said {b.confidence:.2f}, true {b.frequency:.2f} ({b.count})" for b in has_foreground
        )
    )
    return (
        f'<svg class="chart reliability" viewBox="0 0 {right + 12} {bottom + _BOTTOM}" role="img" '
        f'aria-label="{words}"><title>{words}</title>{"".join(parts)}</svg>'
    )


def _draw_cell(x: float, y: float, side: float, number: int, share: float, *, numbers: int) -> str:
    synthetic = (
        f'<rect class="cell" x="{x:.2f}" y="{y:.2f}" width="{side:.2f}" height="{side:.2f}" '
        f'opacity="{0.08 + 0.92 * share:.3f}"/>'
    )
    if numbers > _MOST_NUMBERS:
        return synthetic
    style = "on-cell" if share > 0.5 else "label"
    size = 18 if numbers <= 4 else 13
    return synthetic + (
        f'<text class="{style}" style="font-size:{size}px" x="{x + side / 2:.1f}" '
        f'y="{y + side / 2 + size / 3:.1f}" text-anchor="middle">{number}</text>'
    )


def _draw_names(classes: Sequence[str], cell: float, left: int) -> tuple[str, int]:
    parts = []
    size = 13 if cell >= 14 else 9
    style = f"font-size:{size}px"
    bottom = 30 + _SIDE
    slanted = len(classes) > 4
    for index, name in enumerate(classes):
        shown = escape(name if len(name) <= 20 else f"{name[:19]}…")
        middle = (index + 0.5) * cell
        parts.append(f'<text class="tick" style="{style}" x="{left - 8}" '
                     f'y="{30 + middle + size / 3:.1f}" text-anchor="end">'
                     f"{shown}</text>")  # fmt: skip
        x, y = left + middle, bottom + 16
        turn = f' transform="rotate(-50 {x:.1f} {y})"' if slanted else ""
        anchor = "end" if slanted else "middle"
        parts.append(f'<text class="tick" style="{style}" x="{x:.1f}" y="{y}" '
                     f'text-anchor="{anchor}"{turn}>{shown}</text>')  # fmt: skip
    return "".join(parts), 100 if slanted else 0


def _draw_bin(bin_: CalibrationBin, bottom: int, most: int) -> str:
    frequency, confidence = bin_.frequency or 0.0, bin_.confidence or 0.0
    x, width = _LEFT + _PLOT * bin_.low, _PLOT * (bin_.high - bin_.low)
    radius = 3 + 9 * (bin_.count / most) ** 0.5
    return (
        f'<rect class="bin" x="{x + 1:.1f}" y="{bottom - _PLOT * frequency:.1f}" '
        f'width="{max(width - 2, 1):.1f}" height="{_PLOT * frequency:.1f}"/>'
        f'<circle class="dot line-b" cx="{_LEFT + _PLOT * confidence:.1f}" '
        f'cy="{bottom - _PLOT * frequency:.1f}" r="{radius:.1f}"/>'
    )


def _describe_confusions(table: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    pairs = [
        (number, classes[row], classes[column])
        for row, counts in enumerate(table)
        for column, number in enumerate(counts)
        if number and row != column
    ]
    pairs.sort(key=lambda pair: -pair[0])
    worst = "; ".join(f"{number} of {true} taken for {said}" for number, true, said in pairs[:5])
    return f"Confusions: {worst or 'none'}"

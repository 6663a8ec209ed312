"""A histogram as SVG, in the style of the reports."""

from collections.abc import Sequence
from html import escape

import numpy as np

_WIDTH, _HEIGHT = 440, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 36, 12, 30, 30


def draw_histogram(values: Sequence[float], *, title: str, bins: int = 24) -> str:
    """Draw how many values lie where.

    Args:
        values: Any finite numbers; with none, nothing is drawn.
        title: What they are, with the unit; plain text.
        bins: Bars between the lowest and the highest value.

    Returns:
        An SVG element that says in words what it shows.
    """
    if not values:
        return ""
    counts, edges = np.histogram(values, bins=bins)
    inner, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    highest = int(counts.max())
    bars = "".join(
        f'<rect class="cell" x="{_LEFT + inner * place / bins + 0.5:.1f}" '
        f'y="{_TOP + height * (1 - count / highest):.1f}" width="{inner / bins - 1:.1f}" '
        f'height="{height * count / highest:.1f}"/>'
        for place, count in enumerate(counts)
        if count
    )
    base = _TOP + height
    low, high = f"{edges[0]:.3g}", f"{edges[-1]:.3g}"
    text = f"{title}: {len(values)} values from {low} to {high}"
    return (
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(text)}"><text class="chart-title" x="{_LEFT}" y="18">'
        f"{escape(title)}</text>{bars}"
        f'<line class="axis" x1="{_LEFT}" y1="{base}" x2="{_WIDTH - _RIGHT}" y2="{base}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{_TOP + 5}" text-anchor="end">{highest}</text>'
        f'<text class="tick" x="{_LEFT}" y="{base + 18}">{low}</text>'
        f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{base + 18}" text-anchor="end">{high}</text>'
        "</svg>"
    )

"""Histograms as inline SVG, colored by the page's style sheet."""

from collections.abc import Sequence

import numpy as np

from segnetr.outputs.charts.svg import document, line, rectangle, text

_WIDTH, _HEIGHT = 440, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 36, 12, 30, 30


def draw_histogram(values: Sequence[float], *, title: str, bins: int = 24) -> str:
    """Draw the distribution of values as an `<svg>` element.

    The horizontal axis runs from the lowest to the highest value, without rounding.

    Args:
        values: Finite numbers.
        title: Heading in plain text, with the unit.
        bins: Number of bars.

    Returns:
        An element with a description in words; an empty text if there are no values.
    """
    if not values:
        return ""
    counts, edges = np.histogram(values, bins=bins)
    width, height = (_WIDTH - _LEFT - _RIGHT) / bins, _HEIGHT - _TOP - _BOTTOM
    highest, bottom, right = int(counts.max()), _TOP + height, _WIDTH - _RIGHT
    parts = [text(_LEFT, 18, title, style="chart-title")]
    for index, count in enumerate(counts):
        if count:
            bar = float(height * count / highest)
            parts.append(
                rectangle(_LEFT + width * index + 0.5, bottom - bar, width - 1, bar, style="cell")
            )
    low, high = f"{edges[0]:.3g}", f"{edges[-1]:.3g}"
    parts += [
        line(_LEFT, bottom, right, bottom, style="axis"),
        text(_LEFT - 6, _TOP + 5, str(highest), text_anchor="end"),
        text(_LEFT, bottom + 18, low),
        text(right, bottom + 18, high, text_anchor="end"),
    ]
    label = f"{title}: {len(values)} values from {low} to {high}"
    return document(parts, width=_WIDTH, height=_HEIGHT, label=label)

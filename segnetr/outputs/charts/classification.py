"""Confusion matrices and reliability diagrams as inline SVG, colored by the page's style sheet."""

from collections.abc import Sequence

from segnetr.metrics.classification_summary import CalibrationBin
from segnetr.outputs.charts.axes import Axis, draw_axes
from segnetr.outputs.charts.svg import circle, document, line, rectangle, shorten, text

MOST_CLASSES = 200
"""A confusion matrix of more classes is unreadable."""

_MOST_NUMBERS = 12
_MOST_NAMES = 40
_SIDE = 440
_MARGIN = 150
_PLOT, _LEFT, _TOP, _BOTTOM = 360, 52, 16, 48


def draw_confusions(table: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """Draw true classes (rows) against predicted ones (columns), shaded by the share of the row.

    Up to 12 classes have numbers in their cells, up to 40 have their names.

    Raises:
        ValueError: If there are more than `MOST_CLASSES`.
    """
    count = len(classes)
    if count > MOST_CLASSES:
        raise ValueError(f"{count} classes are too many for an image")
    cell = _SIDE / count
    left = _MARGIN if count <= _MOST_NAMES else 30
    parts = [rectangle(left, 30, _SIDE, _SIDE, style="cell-frame")]
    for row, counts in enumerate(table):
        total = sum(counts)
        for column, number in enumerate(counts):
            if number:
                x, y = left + column * cell, 30 + row * cell
                parts.append(_draw_cell(x, y, cell, number, number / total, classes=count))
    parts.append(text(left + _SIDE / 2, 18, "predicted", text_anchor="middle"))
    height = _SIDE + 62
    if count <= _MOST_NAMES:
        parts.append(_draw_names(classes, cell, left))
        height += 100 if _is_slanted(classes) else 0
    return document(
        parts,
        width=left + _SIDE + 10,
        height=height,
        label=_describe_confusions(table, classes),
        style="chart confusions",
    )


def draw_reliability(bins: Sequence[CalibrationBin], *, unit: str = "cases") -> str:
    """Draw the observed frequency above the predicted confidence.

    Args:
        bins: The bins; empty ones are not drawn.
        unit: The items that the bins count.
    """
    x_axis = Axis.linear([0.0, 1.0], start=_LEFT, end=_LEFT + _PLOT, count=5)
    y_axis = Axis.linear([0.0, 1.0], start=_TOP + _PLOT, end=_TOP, count=5)
    parts = [draw_axes(x_axis, y_axis, x_label=f"confidence; larger dots: more {unit}")]
    most = max((bin_.count for bin_ in bins), default=0)
    filled = []
    for bin_ in bins:
        if bin_.frequency is not None and bin_.confidence is not None:
            left, right = x_axis.position(bin_.low), x_axis.position(bin_.high)
            y = y_axis.position(bin_.frequency)
            width = max(right - left - 2, 1)
            parts.append(rectangle(left + 1, y, width, y_axis.start - y, style="bin"))
            radius = 3 + 9 * (bin_.count / most) ** 0.5
            parts.append(circle(x_axis.position(bin_.confidence), y, radius, style="dot line-b"))
            filled.append(
                f"confidence {bin_.confidence:.2f}, observed {bin_.frequency:.2f} ({bin_.count})"
            )
    parts.append(line(x_axis.start, y_axis.start, x_axis.end, y_axis.end, style="ideal"))
    return document(
        parts,
        width=_LEFT + _PLOT + 12,
        height=_TOP + _PLOT + _BOTTOM,
        label=f"Calibration: {'; '.join(filled)}",
        style="chart reliability",
    )


def _draw_cell(x: float, y: float, side: float, number: int, share: float, *, classes: int) -> str:
    cell = rectangle(x, y, side, side, style="cell", opacity=f"{0.08 + 0.92 * share:.3f}")
    if classes > _MOST_NUMBERS:
        return cell
    size = 18 if classes <= 4 else 13
    return cell + text(
        x + side / 2,
        y + side / 2 + size / 3,
        str(number),
        style="on-cell" if share > 0.5 else "label",
        text_anchor="middle",
        style_=f"font-size:{size}px",
    )


def _is_slanted(classes: Sequence[str]) -> bool:
    return len(classes) > 4


def _draw_names(classes: Sequence[str], cell: float, left: int) -> str:
    parts = []
    size = 13 if cell >= 14 else 9
    font = {"style_": f"font-size:{size}px"}
    y = 46 + _SIDE
    for index, class_name in enumerate(classes):
        name, middle = shorten(class_name, 20), (index + 0.5) * cell
        parts.append(text(left - 8, 30 + middle + size / 3, name, text_anchor="end", **font))
        x = left + middle
        if _is_slanted(classes):
            turn = {"text_anchor": "end", "transform": f"rotate(-50 {x:.1f} {y})"}
        else:
            turn = {"text_anchor": "middle"}
        parts.append(text(x, y, name, **turn, **font))
    return "".join(parts)


def _describe_confusions(table: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    errors = [
        (number, classes[row], classes[column])
        for row, counts in enumerate(table)
        for column, number in enumerate(counts)
        if number and row != column
    ]
    errors.sort(key=lambda error: -error[0])
    worst = "; ".join(
        f"{number} of {true} as {predicted}" for number, true, predicted in errors[:5]
    )
    return f"Confusions: {worst or 'none'}"

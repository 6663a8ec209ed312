"""Build SVG elements. All text and attribute values of the charts are escaped here."""

from collections.abc import Iterable
from html import escape

Value = str | float


def element(tag: str, content: str = "", /, **attributes: Value) -> str:
    """Return an SVG element.

    Args:
        tag: Name of the element.
        content: Markup inside it, made by this module.
        attributes: Values by name, escaped. A trailing underscore is dropped from a name and other
            underscores become hyphens. Numbers are rounded to hundredths.
    """
    pairs = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_format(value)}"'
        for name, value in attributes.items()
    )
    return f"<{tag}{pairs}>{content}</{tag}>" if content else f"<{tag}{pairs}/>"


def text(x: float, y: float, words: str, *, style: str = "tick", **attributes: Value) -> str:
    """Return a line of text.

    Args:
        x: Horizontal position of its anchor.
        y: Baseline.
        words: Plain text, escaped.
        style: Class in the style sheet.
        attributes: Further attributes.
    """
    return element("text", escape(words), class_=style, x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, *, style: str) -> str:
    """Return a straight line of a class in the style sheet."""
    return element("line", class_=style, x1=x1, x2=x2, y1=y1, y2=y2)


def rectangle(x: float, y: float, width: float, height: float, *, style: str, **more: Value) -> str:
    """Return a rectangle of a class in the style sheet."""
    return element("rect", class_=style, x=x, y=y, width=width, height=height, **more)


def circle(
    x: float, y: float, radius: float, *, style: str, tooltip: str = "", **more: Value
) -> str:
    """Return a circle of a class in the style sheet, with a tooltip if it is not empty."""
    content = title(tooltip) if tooltip else ""
    return element("circle", content, class_=style, cx=x, cy=y, r=radius, **more)


def title(words: str) -> str:
    """Return a description in plain text, escaped; browsers show it as a tooltip."""
    return element("title", escape(words))


def document(
    parts: Iterable[str], *, width: float, height: float, label: str, style: str = "chart"
) -> str:
    """Return an `<svg>` element for an HTML page.

    Args:
        parts: Elements.
        width: Width of the drawing.
        height: Height of the drawing.
        label: Description of the chart in words, for screen readers and as a tooltip.
        style: Classes in the style sheet.
    """
    content = title(label) + "".join(parts)
    size = f"0 0 {_format(width)} {_format(height)}"
    return element("svg", content, class_=style, viewBox=size, role="img", aria_label=label)


def file_document(
    parts: Iterable[str], *, width: float, height: float, label: str, style_sheet: str
) -> str:
    """Return an SVG file with its own style sheet and a white background.

    Args:
        parts: Elements.
        width: Width in pixels.
        height: Height in pixels.
        label: Title of the file.
        style_sheet: Rules for the classes of the elements.
    """
    background = element("rect", width=width, height=height, fill="#fff")
    content = title(label) + element("style", escape(style_sheet)) + background + "".join(parts)
    attributes: dict[str, Value] = {"viewBox": f"0 0 {_format(width)} {_format(height)}"}
    attributes |= {"width": width, "height": height, "role": "img", "font_family": "sans-serif"}
    return element("svg", content, xmlns="http://www.w3.org/2000/svg", **attributes) + "\n"


def shorten(words: str, letters: int) -> str:
    """Return text cut to a number of letters, with an ellipsis if something was cut."""
    return words if len(words) <= letters else f"{words[: letters - 1]}…"


def _format(value: Value) -> str:
    if isinstance(value, str):
        return escape(value)
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)

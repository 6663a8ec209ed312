"""Render the HTML pages from the Jinja2 templates next to this file.

Every text is escaped by the templates. The only markup that they accept from Python is the SVG of
`segnetr.outputs.charts`, which escapes its own text, and the style sheet.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from segnetr.outputs.reports.figures import Figure, media_suffix

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_TEMPLATES = Path(__file__).parent / "templates"
_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Badge:
    """A few words on a colored background in a table cell.

    Attributes:
        text: The words.
        is_warning: Draw it as a warning.
    """

    text: str
    is_warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HtmlTable:
    """A table. All texts are plain.

    Attributes:
        headers: Name of each column.
        rows: Cells of each row: plain text, an SVG chart or a badge.
        text_columns: Columns of text; the other columns are right-aligned numbers.
        style: Class in the style sheet.
        group_starts: Indices of rows with a rule above them.
        has_row_headers: The first cell of each row names the row.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence["str | Markup | Badge"]]
    text_columns: Sequence[str] = ()
    style: str = "scores"
    group_starts: Sequence[int] = ()
    has_row_headers: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A number at the top of a page.

    Attributes:
        name: Its name.
        value: The number.
        range: A line below it, for example its interval.
    """

    name: str
    value: str
    range: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureGroup:
    """Figures under one heading.

    Attributes:
        title: The heading.
        figures: Number on the page, title without the heading, and figure.
    """

    title: str
    figures: Sequence[tuple[int, str, Figure]]


def render_page(template: str, **content: object) -> str:
    """Return a page as text.

    Args:
        template: File name of the template.
        content: Values that the template uses.
    """
    return _environment().get_template(template).render(content)


def mark_svg(svg: str) -> "Markup":
    """Mark an SVG of our charts as safe: the charts escape their own text."""
    from markupsafe import Markup

    return Markup(svg)


def group_figures(figures: Sequence[Figure]) -> list[FigureGroup]:
    """Group figures whose titles agree up to a colon, in the order of the first of each group."""
    groups: dict[str, list[tuple[int, str, Figure]]] = {}
    for number, figure in enumerate(figures, start=1):
        heading = figure.title.split(":")[0]
        title = figure.title.removeprefix(heading).removeprefix(":").strip() or figure.title
        groups.setdefault(heading, []).append((number, title, figure))
    return [FigureGroup(title=name, figures=members) for name, members in groups.items()]


@cache
def _environment() -> "Environment":
    # Jinja2 takes 0.1 s to import, and most commands write no page.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style_sheet"] = mark_svg(
        (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    )
    environment.filters["data_uri"] = _encode_image
    environment.tests["badge"] = lambda cell: isinstance(cell, Badge)
    return environment


def _encode_image(data: bytes) -> str:
    """Return an image file as a data address.

    Raises:
        ValueError: If it is not a PNG, JPEG or WebP file.
    """
    text = base64.b64encode(data).decode("ascii")
    return f"data:{_MEDIA_TYPES[media_suffix(data)]};base64,{text}"

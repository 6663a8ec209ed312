"""The parts that all reports are made of. Every text is plain and escaped here, and only here."""

import base64
from collections.abc import Mapping, Sequence
from html import escape

from segnetr.outputs.charts.curves import chart_rows, draw_chart
from segnetr.outputs.reports.figures import Figure, media_suffix
from segnetr.outputs.reports.style import STYLE

_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}


def draw_page(
    *, title: str, subtitle: str, head: str, sections: Sequence[tuple[str, str, str]]
) -> str:
    """Put a page together.

    Args:
        title: Heading, plain text.
        subtitle: One line below it, plain text.
        head: HTML before the first section.
        sections: Anchor, heading and HTML of each; those without HTML are left out.
    """
    has_foreground = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in has_foreground)
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{inner}</section>'
        for key, title, inner in has_foreground
    )
    below = f'<p class="soft">{escape(subtitle)}</p>' if subtitle else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>"
        f"<header><h1>{escape(title)}</h1>{below}<nav>{links}</nav></header>"
        f"{head}{body}"
        "<footer>Written by segnetr. A research tool, not a medical device.</footer>"
        "</main></body></html>\n"
    )


def draw_tile(name: str, value: str, below: str) -> str:
    """Draw one figure that a reader looks for first: its name, its value, a line below."""
    return (
        f'<div class="tile"><div class="name">{escape(name)}</div>'
        f'<div class="value">{escape(value)}</div><div class="range">{escape(below)}</div></div>'
    )


def draw_charts(rows: Sequence[Mapping[str, object]]) -> str:
    """Draw the lines of `metrics.jsonl` as charts, one for each name."""
    charts = [f'<div class="panel chart-panel">{draw_chart(c)}</div>' for c in chart_rows(rows)]
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def draw_facts(facts: Mapping[str, str]) -> str:
    """Draw facts by name as a table of two columns; nothing where there are none."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    table = f'<table class="facts"><tbody>{rows}</tbody></table>'
    return f'<div class="panel">{table}</div>' if rows else ""


def draw_list(lines: Sequence[str]) -> str:
    """Draw lines as a list; nothing where there are none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="panel"><ul>{items}</ul></div>' if items else ""


def draw_notes(lines: Sequence[str]) -> str:
    """Draw what the reader should know before all else; nothing where there is nothing."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="warn"><ul>{items}</ul></div>' if items else ""


def draw_settings(text: str) -> str:
    """Draw the resolved configuration, folded up."""
    if not text:
        return ""
    count = len(text.splitlines())
    return (
        f"<details><summary>The resolved configuration, {count} lines: running it again repeats"
        f' the run</summary><div class="panel"><pre>{escape(text)}</pre></div></details>'
    )


def draw_table(head: str, rows: Sequence[str], *, kind: str = "scores") -> str:
    """Put a head and rows, both HTML already, into a table."""
    return (
        f'<div class="panel"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def draw_figures(figures: Sequence[Figure], *, wide: bool = False) -> str:
    """Draw images inside the page; those whose titles agree up to a colon under one heading.

    Args:
        figures: In the order to show them.
        wide: Give each the whole width of the page.
    """
    style = "figures wide" if wide else "figures"
    groups: dict[str, list[tuple[int, Figure]]] = {}
    for number, figure in enumerate(figures, start=1):
        groups.setdefault(figure.title.split(":")[0], []).append((number, figure))
    parts = []
    for name, members in groups.items():
        shown = "".join(_draw_figure(figure, group=name, number=n) for n, figure in members)
        parts.append(f'<h3>{escape(name)}</h3><div class="{style}">{shown}</div>')
    return "".join(parts)


def _draw_figure(figure: Figure, *, group: str, number: int) -> str:
    title = figure.title.removeprefix(group).removeprefix(":").strip() or figure.title
    return (
        f"<figure>{_draw_image(figure.data, figure.alt)}{_draw_slices(figure, number)}"
        f"<figcaption><strong>{escape(title)}</strong>{escape(figure.caption)}"
        f"{draw_badge(figure.badge)}{draw_badge(figure.alarm, is_alarm=True)}</figcaption>"
        "</figure>"
    )


def _draw_slices(figure: Figure, place: int) -> str:
    """Draw a slider through slices: a row of radio buttons, which the arrow keys move along.

    No script runs: the style sheet shows the image behind the button that is chosen.
    """
    if not figure.slices:
        return ""
    count = len(figure.slices)
    parts = []
    for number, data in enumerate(figure.slices, start=1):
        words = f"slice {number} of {count}"
        chosen = " checked" if number == (count + 1) // 2 else ""
        parts.append(
            f'<input type="radio" name="slices-{place}" aria-label="{words}" '
            f'title="{words}"{chosen}>' + _draw_image(data, f"{figure.alt}; {words}")
        )
    return (
        f'<fieldset class="slices" style="grid-template-columns: repeat({count}, 1fr)">'
        f"<legend>Slices, lowest to highest</legend>{''.join(parts)}</fieldset>"
    )


def _draw_image(data: bytes, words: str) -> str:
    text = base64.b64encode(data).decode("ascii")
    media = _MEDIA_TYPES[media_suffix(data)]
    return f'<img src="data:{media};base64,{text}" alt="{escape(words)}">'


def draw_badge(text: str, *, is_alarm: bool = False) -> str:
    """Draw a few words on a colored ground; nothing where there are none."""
    kind = "badge alarm" if is_alarm else "badge"
    return f'<span class="{kind}">{escape(text)}</span>' if text else ""


def align_number(is_number: bool) -> str:
    """Give the attribute of a cell that holds numbers, where it does."""
    return ' class="number"' if is_number else ""

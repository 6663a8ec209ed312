"""One HTML file about a data set: what is in it, what is wrong, what its masks look like."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from segnetr.data.validation.measure import CaseMeasures
from segnetr.outputs.charts.histogram import draw_histogram
from segnetr.outputs.reports.elements import (
    align_number,
    draw_facts,
    draw_list,
    draw_notes,
    draw_page,
    draw_table,
    draw_tile,
)
from segnetr.outputs.reports.figures import Figure, media_suffix
from segnetr.storage.manifest import write_text_atomic

_MOST_SIZES = 12
_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPageContent:
    """All that the page shows. Every text is plain: it is escaped here.

    Attributes:
        title: Heading of the page.
        subtitle: One line below it.
        facts: Name, folder, counts by part, patients, source, license.
        classes: Class names, background first.
        measures: Of the cases that can be read.
        figures: The contact sheet.
        issues: Code and message of each.
        notes: Things the reader should know, one line each.
    """

    title: str
    subtitle: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    classes: Sequence[str] = ()
    measures: Sequence[CaseMeasures] = ()
    figures: Sequence[Figure] = ()
    issues: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()


def write_data_page(path: Path, *, content: DataPageContent) -> None:
    """Write the page.

    Raises:
        WriteError: If it cannot be written; an older page is then untouched.
    """
    write_text_atomic(path, render_data_page(content))


def render_data_page(content: DataPageContent) -> str:
    """Give the page as text."""
    measures = content.measures
    sections = [
        ("issues", "Issues", _issues(content.issues)),
        ("data", "Data set", draw_facts(content.facts)),
        ("classes", "Classes", _classes(content.classes, measures)),
        ("sizes", "Sizes and spacing", _sizes(measures)),
        ("values", "Intensities", _values(measures)),
        ("sheet", "Masks over images", _sheet(content.figures)),
    ]
    tiles = [
        draw_tile("Cases", str(len(measures)), "read without a issue in the file"),
        draw_tile("Issues", str(len(content.issues)), _count_kinds(content.issues)),
        draw_tile("Classes", str(max(0, len(content.classes) - 1)), "beside the background"),
    ]
    return draw_page(
        title=content.title,
        subtitle=content.subtitle,
        head=draw_notes(content.notes) + f'<div class="tiles">{"".join(tiles)}</div>',
        sections=sections,
    )


def _count_kinds(issues: Sequence[tuple[str, str]]) -> str:
    counts = Counter(kind for kind, _ in issues)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "none found"


def _issues(issues: Sequence[tuple[str, str]]) -> str:
    if not issues:
        return "<p>None was found.</p>"
    return draw_list([f"{kind}: {message}" for kind, message in issues])


def _classes(names: Sequence[str], measures: Sequence[CaseMeasures]) -> str:
    shares = np.array([case.shares for case in measures if case.shares])
    if not len(shares):
        return ""
    head = _head(("class", "cases with it", "mean share", "median", "smallest", "largest", ""))
    rows = []
    for name, column in zip(names, shares.T, strict=True):
        present = column[column > 0]
        numbers = [f"{len(present)} of {len(column)}", f"{column.mean():.2%}"]
        numbers += [
            f"{value:.2%}" if len(present) else "-"
            for value in (np.median(column), present.min(initial=1), present.max(initial=0))
        ]
        bar = (
            '<svg class="interval" viewBox="0 0 150 14" aria-hidden="true">'
            '<rect class="track" x="0" y="6" width="150" height="2"/>'
            f'<rect class="span" x="0" y="3" width="{150 * column.mean():.1f}" height="8"/></svg>'
        )
        rows.append(_row(name, [*numbers, bar]))
    charts = [
        draw_histogram((100 * column[column > 0]).tolist(), title=f"{name}: share of a case, %")
        for name, column in list(zip(names, shares.T, strict=True))[1:]
    ]
    return draw_table(head, rows) + _charts(charts)


def _sizes(measures: Sequence[CaseMeasures]) -> str:
    if not measures:
        return ""
    counts = Counter((case.size, case.channels, case.value_type) for case in measures)
    head = _head(("size", "channels", "values", "cases"), plain=("size", "values"))
    rows = [
        f'<tr><th scope="row">{" x ".join(map(str, size))}</th><td class="number">{channels}</td>'
        f'<td>{escape(kind)}</td><td class="number">{count}</td></tr>'
        for (size, channels, kind), count in counts.most_common(_MOST_SIZES)
    ]
    left = len(counts) - _MOST_SIZES
    more = f"<p>and {left} further sizes</p>" if left > 0 else ""
    facts = _describe_sides(measures)
    return draw_facts(facts) + draw_table(head, rows, kind="counts") + more


def _describe_sides(measures: Sequence[CaseMeasures]) -> dict[str, str]:
    is_volume = any(len(case.size) == 3 for case in measures)
    names = ("X", "Y", "Z") if is_volume else ("Height", "Width")
    facts = {}
    for axis, name in enumerate(names):
        sides = [case.size[axis] for case in measures if len(case.size) == len(names)]
        facts[name] = f"{min(sides)} to {max(sides)}, median {np.median(sides):g} pixels"
    spacings = [case.spacing for case in measures if case.spacing is not None]
    for axis, name in enumerate(names):
        known = [spacing[axis] for spacing in spacings if len(spacing) > axis]
        if known:
            middle = np.median(known)
            facts[f"Spacing along {name}"] = (
                f"{min(known):.4g} to {max(known):.4g}, median {middle:.4g} mm"
            )
    return facts


def _values(measures: Sequence[CaseMeasures]) -> str:
    if not measures:
        return ""
    head = _head(("over all cases", "lowest", "median", "highest"))
    columns = {
        "1st percentile of a case": [case.low for case in measures],
        "mean of a case": [case.mean for case in measures],
        "99th percentile of a case": [case.high for case in measures],
    }
    rows = [
        _row(name, [f"{value:.4g}" for value in (min(found), np.median(found), max(found))])
        for name, found in columns.items()
    ]
    charts = [draw_histogram(found, title=name) for name, found in columns.items()]
    return draw_table(head, rows) + _charts(charts)


def _sheet(figures: Sequence[Figure]) -> str:
    shown = []
    for figure in figures:
        media = _MEDIA_TYPES[media_suffix(figure.data)]
        text = base64.b64encode(figure.data).decode("ascii")
        shown.append(
            f'<figure><img src="data:{media};base64,{text}" alt="{escape(figure.alt)}">'
            f"<figcaption><strong>{escape(figure.title)}</strong>{escape(figure.caption)}"
            "</figcaption></figure>"
        )
    return f'<div class="figures sheet">{"".join(shown)}</div>' if shown else ""


def _head(names: Sequence[str], *, plain: Sequence[str] = ()) -> str:
    return "".join(
        f'<th scope="col"{align_number(place > 0 and name not in plain)}>{escape(name)}</th>'
        for place, name in enumerate(names)
    )


def _row(name: str, cells: Sequence[str]) -> str:
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f'<tr><th scope="row">{escape(name)}</th>{numbers}</tr>'


def _charts(charts: Sequence[str]) -> str:
    panels = "".join(f'<div class="panel chart-panel">{chart}</div>' for chart in charts if chart)
    return f'<div class="charts small">{panels}</div>' if panels else ""

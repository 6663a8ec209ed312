"""The HTML report of a dataset: its cases, its issues, its masks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segnetr.data.validation.measure import CaseMeasures
from segnetr.outputs.charts.histogram import draw_histogram
from segnetr.outputs.charts.interval_bar import draw_share_bar
from segnetr.outputs.reports.figures import Figure
from segnetr.outputs.reports.rendering import HtmlTable, Tile, mark_svg, render_page
from segnetr.storage.manifest import write_text_atomic

if TYPE_CHECKING:
    from markupsafe import Markup

_MOST_SIZES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """The content of the report. All texts are plain.

    Attributes:
        title: Heading of the page.
        subtitle: One line below it.
        facts: Name, folder, cases of each split, patients, source, license.
        classes: Class names, background first.
        measures: Measurements of the readable cases.
        figures: The contact sheet.
        issues: Kind and message of each.
        notes: Warnings at the top of the page, one line each.
    """

    title: str
    subtitle: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    classes: Sequence[str] = ()
    measures: Sequence[CaseMeasures] = ()
    figures: Sequence[Figure] = ()
    issues: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()


def write_dataset_report(path: Path, report: DatasetReport) -> None:
    """Write the page.

    Raises:
        WriteError: If it cannot be written. An existing page is then unchanged.
    """
    write_text_atomic(path, render_dataset_report(report))


def render_dataset_report(report: DatasetReport) -> str:
    """Return the page as text."""
    measures = report.measures
    sizes = Counter((case.size, case.channels, case.value_type) for case in measures)
    shares, values = _list_shares(report.classes, measures), _list_intensities(measures)
    return render_page(
        "dataset_report.html.j2",
        report=report,
        title=report.title,
        subtitle=report.subtitle,
        tiles=[
            Tile(name="Cases", value=str(len(measures)), range="with readable files"),
            Tile(name="Issues", value=str(len(report.issues)), range=_count_kinds(report.issues)),
            Tile(
                name="Classes",
                value=str(max(0, len(report.classes) - 1)),
                range="without the background",
            ),
        ],
        issues=[f"{kind}: {message}" for kind, message in report.issues],
        class_table=_tabulate_classes(shares),
        class_charts=_chart_classes(shares),
        size_facts=_describe_sides(measures),
        size_table=_tabulate_sizes(sizes),
        more_sizes=max(0, len(sizes) - _MOST_SIZES),
        value_table=_tabulate_intensities(values),
        value_charts=[
            mark_svg(draw_histogram(found, title=name)) for name, found in values.items() if found
        ],
    )


def _count_kinds(issues: Sequence[tuple[str, str]]) -> str:
    counts = Counter(kind for kind, _ in issues)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "none found"


def _list_shares(
    names: Sequence[str], measures: Sequence[CaseMeasures]
) -> list[tuple[str, NDArray[np.float64]]]:
    """Return each class with its share of each measured case."""
    shares = np.array([case.shares for case in measures if case.shares], dtype=np.float64)
    return list(zip(names, shares.T, strict=True)) if len(shares) else []


def _tabulate_classes(shares: Sequence[tuple[str, NDArray[np.float64]]]) -> HtmlTable:
    rows = []
    for name, column in shares:
        present = column[column > 0]
        extremes = (np.median(present), present.min(), present.max()) if len(present) else ()
        rows.append(
            [
                name,
                f"{len(present)} of {len(column)}",
                f"{column.mean():.2%}",
                *([f"{value:.2%}" for value in extremes] or ["-"] * 3),
                mark_svg(draw_share_bar(float(column.mean()))),
            ]
        )
    return HtmlTable(
        headers=("class", "cases with it", "mean share", "median", "smallest", "largest", "0 to 1"),
        rows=rows,
        text_columns=("class", "0 to 1"),
    )


def _chart_classes(shares: Sequence[tuple[str, NDArray[np.float64]]]) -> "list[Markup]":
    """Draw the distribution of the share of each foreground class, in cases that contain it."""
    charts = [
        draw_histogram((100 * column[column > 0]).tolist(), title=f"{name}: share of a case, %")
        for name, column in shares[1:]
    ]
    return [mark_svg(chart) for chart in charts if chart]


def _tabulate_sizes(sizes: Counter[tuple[tuple[int, ...], int, str]]) -> HtmlTable:
    return HtmlTable(
        headers=("size", "channels", "values", "cases"),
        rows=[
            [" x ".join(map(str, size)), str(channels), kind, str(count)]
            for (size, channels, kind), count in sizes.most_common(_MOST_SIZES)
        ],
        text_columns=("size", "values"),
        style="counts",
    )


def _describe_sides(measures: Sequence[CaseMeasures]) -> dict[str, str]:
    if not measures:
        return {}
    is_volume = any(len(case.size) == 3 for case in measures)
    names = ("X", "Y", "Z") if is_volume else ("Height", "Width")
    facts = {}
    for axis, name in enumerate(names):
        sides = [case.size[axis] for case in measures if len(case.size) == len(names)]
        facts[name] = f"{min(sides)} to {max(sides)}, median {np.median(sides):g} pixels"
    return facts | _describe_spacings(measures, names)


def _describe_spacings(measures: Sequence[CaseMeasures], names: Sequence[str]) -> dict[str, str]:
    """Return the range and the median of the spacing along each axis that has one."""
    facts = {}
    spacings = [case.spacing for case in measures if case.spacing is not None]
    for axis, name in enumerate(names):
        known = [spacing[axis] for spacing in spacings if len(spacing) > axis]
        if known:
            middle = np.median(known)
            facts[f"Spacing along {name}"] = (
                f"{min(known):.4g} to {max(known):.4g}, median {middle:.4g} mm"
            )
    return facts


def _list_intensities(measures: Sequence[CaseMeasures]) -> dict[str, list[float]]:
    return {
        "1st percentile of a case": [case.low for case in measures],
        "mean of a case": [case.mean for case in measures],
        "99th percentile of a case": [case.high for case in measures],
    }


def _tabulate_intensities(values: Mapping[str, Sequence[float]]) -> HtmlTable:
    return HtmlTable(
        headers=("over all cases", "lowest", "median", "highest"),
        rows=[
            [name, *(f"{value:.4g}" for value in (min(found), np.median(found), max(found)))]
            for name, found in values.items()
            if found
        ],
        text_columns=("over all cases",),
    )

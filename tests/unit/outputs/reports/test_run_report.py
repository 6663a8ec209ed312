import base64
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from segnetr.errors import WriteError
from segnetr.metrics import score_masks, summarize
from segnetr.outputs.charts.lines import (
    Line,
    LineChart,
    chart_training_log,
    describe_line_chart,
    draw_line_chart,
)
from segnetr.outputs.reports.figures import Figure
from segnetr.outputs.reports.run_report import RunReport, render_run_report, write_run_report

VOID = {"meta", "img", "br", "hr", "input", "link"}
SVG_LEAVES = {"line", "rect", "circle", "polyline", "path"}
EVIL = '<script>alert("x")</script>&"\''


class Page(HTMLParser):
    """Collects a page, and fails where tags are not nested."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"{tag} repeats an attribute"
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in SVG_LEAVES, f"<{tag}/> is no empty element in HTML"
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("style",):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def image(kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (40, 20), (200, 120, 90)).save(file, kind)
    return file.getvalue()


def summaries(classes=("background", "lesion"), *, empty=False):
    scores = []
    for number in range(6):
        prediction, ground_truth = np.zeros((2, 30, 30), np.uint8)
        if not empty:
            for index in range(1, len(classes)):
                ground_truth[5:15, 8 * index : 8 * index + 6] = index
                prediction[5 : 9 + number, 8 * index : 8 * index + 6] = index if number else 0
        scores += score_masks(prediction, ground_truth, classes=classes, case_id=f"c{number}")
    return summarize(scores, bootstrap=50)


def metric_rows():
    rows = [
        {"step": step, "phase": "train", "total": 1 / step, "lr": 1e-3} for step in range(1, 601)
    ]
    rows += [
        {"step": step, "phase": "validation", "dice": 1 - 1 / step, "loss": 2 / step}
        for step in range(100, 601, 100)
    ]
    return rows


def full_content(text="plain"):
    return RunReport(
        title=f"Run {text}",
        subtitle=f"first {text}",
        facts={f"Data {text}": f"ISIC {text}"},
        summaries=summaries(("background", f"lesion {text}", f"hair {text}")),
        scored=f"test part {text}",
        curves=[*metric_rows(), {"step": 1, "phase": f"ph {text}", f"name {text}": 1.0}],
        figures=[
            Figure(name="best-1", title=f"Best: {text}", caption=text, alt=text, data=image()),
            Figure(name="worst-1", title="Worst: b", caption="c", alt="d", data=image("JPEG")),
        ],
        settings_yaml=f"data:\n  dataset: {text}\n",
        provenance={f"torch {text}": f"2 {text}"},
        issues=[f"issue {text}"],
        notes=[f"note {text}"],
    )


def test_page_is_well_formed_and_every_image_has_a_description():
    page = Page(render_run_report(full_content()))
    assert render_run_report(full_content()).startswith("<!DOCTYPE html>")
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("title")) >= 1
    images = page.all("img")
    assert len(images) == 2
    assert all(image["alt"] for image in images)
    charts = [svg for svg in page.all("svg") if "chart" in svg["class"]]
    assert charts
    assert all(svg["aria-label"] for svg in charts)
    anchors = {link["href"].removeprefix("#") for link in page.all("a")}
    identities = [a["id"] for _, a in page.tags if "id" in a]
    assert anchors == set(identities)
    assert len(identities) == len(set(identities))


def test_page_has_no_external_address_and_no_script():
    text = render_run_report(full_content())
    for pattern in (r"https?:", r'src="(?!data:image/)', r'href="(?!#)', r"url\(", r"@import",
                    r"<script", r"<link", r"<iframe", r"\son\w+="):  # fmt: skip
        assert not re.search(pattern, text, flags=re.IGNORECASE), pattern


def test_external_text_is_shown_as_text():
    text = render_run_report(full_content(EVIL))
    assert "<script" not in text
    page = Page(text)
    assert not page.all("script")
    assert {name for tag in page.tags for name in tag[1]} & {
        "onload",
        "onerror",
        "onclick",
    } == set()
    # Title, subtitle, fact, class names, settings, provenance, issue, note, caption and phase.
    for words in ("Run", "first", "ISIC", "test part", "lesion", "2", "issue", "note", "ph"):
        assert f"{words} {EVIL}" in page.text, words
    assert page.all("img")[0]["alt"] == EVIL


def test_page_shows_scores_with_intervals_and_counts():
    rows = summaries()
    dice = next(row for row in rows if row.metric == "dice")
    text = Page(render_run_report(RunReport(title="t", summaries=rows))).text
    assert f"{dice.mean:.3f}" in text
    assert f"{dice.low:.3f} to {dice.high:.3f}" in text
    for words in ("false negatives", "false positives", "empty in both", "HD95 (px)",
                  "NSD at 2 px", "ISIC Jaccard", "Pooled Dice", "False negatives"):  # fmt: skip
        assert words in text, words
    cells = re.findall(r"<td class=\"number\">(\d+)</td>", render_run_report(
        RunReport(title="t", summaries=rows)))  # fmt: skip
    assert cells[-4:] == ["6", "1", "0", "0"]


def test_page_without_scores_has_a_message():
    page = Page(render_run_report(RunReport(title="nothing yet")))
    assert "No case has been scored yet." in page.text
    assert not page.all("svg")


def test_undefined_scores_and_single_points_do_not_break_the_page():
    content = RunReport(
        title="t",
        summaries=summaries(empty=True),
        curves=[{"step": 1, "phase": "train", "total": 0.5}],
    )
    text = Page(render_run_report(content)).text
    assert "0 of 6" in text
    assert "HD95 (px) - -" in re.sub(r"\s+", " ", text)
    assert "nan" not in render_run_report(content).lower()


def test_images_are_inside_the_file(tmp_path):
    write_run_report(tmp_path / "report.html", full_content())
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    kinds = [
        (kind, base64.b64decode(data))
        for kind, data in re.findall(r'src="data:image/(\w+);base64,([^"]+)"', text)
    ]
    assert kinds == [("png", image()), ("jpeg", image("JPEG"))]
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_failed_write_leaves_the_existing_report(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="cannot write"):
        write_run_report(tmp_path / "file" / "report.html", full_content())


def test_training_log_gives_one_chart_per_quantity():
    charts = chart_training_log(metric_rows())
    assert [(chart.title, [line.name for line in chart.lines]) for chart in charts] == [
        ("Loss", ["training", "validation"]),
        ("Dice", ["validation"]),
        ("Learning rate", ["training"]),
    ]
    assert charts[1].lines[0].points[0] == (100, 0.99)
    assert charts[1].mark_best
    assert chart_training_log([]) == []


def test_curve_spans_the_axes():
    svg = draw_line_chart(
        LineChart(title="Loss", lines=[Line(name="a", points=[(0, 0.0), (100, 1.0)])])
    )
    [path] = re.findall(r'<polyline[^>]*points="([^"]+)"', svg)
    points = [tuple(map(float, point.split(","))) for point in path.split()]
    assert points == [(58.0, 254.0), (544.0, 40.0)]
    ticks = re.findall(r">([\d.]+)</text>", svg)
    assert {"0.0", "0.2", "1.0"} <= set(ticks)
    assert {"0", "20", "100"} <= set(ticks)


@pytest.mark.parametrize(
    "values",
    [[1e-3, 5e-4, 1e-5], [0.0], [5.0, 5.0], [-3.0, 8.0], [1e6, 3e7], [0.81, 0.8101], [1e-300]],
)
def test_axis_ticks_are_distinct_and_axes_contain_all_points(values):
    points = list(enumerate(values))
    svg = draw_line_chart(LineChart(title="t", lines=[Line(name="a", points=points)]))
    labels = re.findall(r'text-anchor="end">([^<]+)</text>', svg)
    assert len(set(labels)) == len(labels) >= 2
    for _, y in re.findall(r'<circle class="dot[^"]*" cx="([\d.]+)" cy="([-\d.]+)"', svg):
        assert 40 <= float(y) <= 254


def test_long_curves_are_averaged_to_240_points():
    points = [(step, float(step % 2)) for step in range(10_000)]
    svg = draw_line_chart(LineChart(title="t", lines=[Line(name="a", points=points)]))
    [path] = re.findall(r'<polyline[^>]*points="([^"]+)"', svg)
    assert len(path.split()) == 240
    assert len(svg) < 12_000


def test_non_finite_values_are_not_drawn():
    line = Line(name="a", points=[(0, 1.0), (1, math.nan), (2, math.inf), (3, 0.5)])
    assert "nan" not in draw_line_chart(LineChart(title="t", lines=[line]))
    assert describe_line_chart(LineChart(title="t", lines=[line])) == (
        "t: a from 1 at step 0 to 0.5 at step 3"
    )
    with pytest.raises(ValueError, match="no finite point"):
        draw_line_chart(LineChart(title="t", lines=[Line(name="a", points=[(0, math.nan)])]))


def test_best_validation_score_is_marked():
    points = [(10, 0.5), (20, 0.9), (30, 0.7)]
    svg = draw_line_chart(
        LineChart(title="Dice", lines=[Line(name="v", points=points)], mark_best=True)
    )
    assert "best 0.900 at step 20" in svg

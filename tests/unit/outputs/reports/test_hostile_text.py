"""Markup in any text of a page is shown as text and never interpreted."""

from dataclasses import fields, is_dataclass
from html.parser import HTMLParser

import numpy as np
import pytest

from segnetr.config.schema.postprocessing import PostprocessingTrial
from segnetr.data.validation.measure import CaseMeasures
from segnetr.engine.quality.estimator import Quality
from segnetr.metrics import Unscored, score_masks, summarize
from segnetr.metrics.classification import LabeledPredictions
from segnetr.metrics.classification_summary import summarize_classes
from segnetr.metrics.paired import Difference
from segnetr.metrics.pixel_calibration import PixelReliability
from segnetr.metrics.significance import PairedResult
from segnetr.outputs.charts.box_plot import Box, BoxChart
from segnetr.outputs.charts.dot_plot import Dot, DotChart
from segnetr.outputs.reports.case_section import CaseSection
from segnetr.outputs.reports.classification_report import (
    ClassificationReport,
    render_classification_report,
)
from segnetr.outputs.reports.comparison_report import ComparisonReport, render_comparison_report
from segnetr.outputs.reports.dataset_report import DatasetReport, render_dataset_report
from segnetr.outputs.reports.figures import Figure
from segnetr.outputs.reports.fold_table import FoldScores
from segnetr.outputs.reports.quality_section import QualityCase
from segnetr.outputs.reports.rendering import render_page
from segnetr.outputs.reports.run_report import RunReport, render_run_report
from segnetr.outputs.tables.comparison import ComparisonRow
from segnetr.outputs.tables.scores import SummaryFile

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&"
PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(8)


class Tags(HTMLParser):
    """Collects the tags and attributes of a page, and its text."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = set(), set(), ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.text += " ".join(str(value) for _, value in attributes)

    def handle_data(self, data):
        self.text += data


def summaries():
    scores = []
    for number in range(4):
        ground_truth = np.zeros((20, 20), np.uint8)
        ground_truth[4:10, 4:10] = 1
        ground_truth[12:16, 12:16] = 2
        prediction = np.roll(ground_truth, number, axis=0)
        classes = ("background", EVIL, f"second {EVIL}")
        scores += score_masks(prediction, ground_truth, classes=classes, case_id=f"{EVIL}{number}")
    return tuple(summarize(scores, bootstrap=50))


def figures():
    return [
        Figure(
            name=EVIL,
            title=f"{EVIL} heading: {EVIL}",
            caption=EVIL,
            alt=EVIL,
            data=PIXEL,
            slices=(PIXEL, PIXEL),
            badge=EVIL,
            alarm=EVIL,
        )
    ]


def dot_chart():
    return DotChart(
        title=EVIL,
        x_label=EVIL,
        y_label=EVIL,
        dots=[Dot(name=EVIL, x=0.1, y=0.2), Dot(name=EVIL, x=0.4, y=0.3)],
        levels=[(EVIL, 0.2)],
        diagonal=True,
        words=EVIL,
    )


def classification_summary():
    ground_truth = np.eye(3, dtype=np.int64)[np.arange(12) % 3]
    scores = np.random.default_rng(0).random((12, 3)) + ground_truth
    answers = LabeledPredictions(
        case_ids=tuple(map(str, range(12))),
        probabilities=scores / scores.sum(axis=1, keepdims=True),
        ground_truth=ground_truth,
        multi_label=False,
        groups=tuple(map(str, range(12))),
    )
    return summarize_classes(answers, (EVIL, f"b {EVIL}", "c"), bins=5, bootstrap=20, seed=0)


def training_texts():
    return {
        "title": EVIL,
        "subtitle": EVIL,
        "facts": {EVIL: EVIL},
        "scored": EVIL,
        "curves": [{"step": 1, "phase": EVIL, EVIL: 1.0}, {"step": 2, "phase": EVIL, EVIL: 2.0}],
        "settings_yaml": EVIL,
        "provenance": {EVIL: EVIL},
        "issues": [EVIL],
        "notes": [EVIL],
    }


def run_report():
    rows = summaries()
    quality = Quality(
        dice=0.8, low=0.7, high=0.9, level=0.9, is_ood=True, ood_score=1.5, reasons=(EVIL,)
    )
    bins = classification_summary().bins
    return RunReport(
        **training_texts(),
        summaries=rows,
        folds=[FoldScores(fold=1, cases=4, steps=10, summaries=rows)],
        tested=SummaryFile(
            title=EVIL,
            summaries=rows,
            settings={},
            unscored=(Unscored(case_id=EVIL, reason=EVIL),),
        ),
        figures=figures(),
        cases=CaseSection(
            boxes=[
                BoxChart(
                    title=EVIL, label=EVIL, boxes=[Box(name=EVIL, values=[0.1])], is_share=True
                )
            ],
            agreement=[dot_chart()],
            ejections=[{"patient": EVIL, EVIL: EVIL}],
            reliability=PixelReliability(bins=bins, error=0.1, cases=3),
            times={EVIL: EVIL},
            quality=[QualityCase(case_id=EVIL, dice=0.5, quality=quality)],
        ),
        trials=[PostprocessingTrial(step=EVIL, gain=0.1, low=0.0, high=0.2, cases=6, taken=True)],
    )


def comparison_report():
    result = PairedResult(
        first_mean=0.5, second_mean=0.6, patients=9, higher=8, lower=1, equal=0, effect=0.5,
        p_value=0.01, difference=Difference(mean=0.1, low=0.05, high=0.2, cases=9),
    )  # fmt: skip
    row = ComparisonRow(
        first=EVIL, second=f"b {EVIL}", class_name=EVIL, metric="dice", result=result,
        p_corrected=0.01,
    )  # fmt: skip
    return ComparisonReport(
        title=EVIL,
        subtitle=EVIL,
        notes=[EVIL],
        rows=[row],
        charts=[dot_chart()],
        figures=figures(),
        settings=[{"setting": EVIL, EVIL: EVIL}],
        facts={EVIL: EVIL},
    )


def dataset_report():
    measures = CaseMeasures(
        size=(20, 30), channels=3, value_type=EVIL, spacing=(1.0, 1.0), low=1.0, mean=2.0,
        high=3.0, shares=(0.8, 0.2),
    )  # fmt: skip
    return DatasetReport(
        title=EVIL,
        subtitle=EVIL,
        facts={EVIL: EVIL},
        classes=("background", EVIL),
        measures=[measures],
        figures=figures(),
        issues=[(EVIL, EVIL)],
        notes=[EVIL],
    )


PAGES = {
    "run": (run_report, render_run_report),
    "classification": (
        lambda: ClassificationReport(**training_texts(), summary=classification_summary()),
        render_classification_report,
    ),
    "comparison": (comparison_report, render_comparison_report),
    "dataset": (dataset_report, render_dataset_report),
}


@pytest.mark.parametrize("name", PAGES)
def test_markup_in_any_text_field_is_escaped(name):
    make, render = PAGES[name]
    report = make()
    assert is_dataclass(report)
    # Every field is filled, so a field that is added later must be added here too.
    assert all(getattr(report, field.name) for field in fields(report))
    text = render(report)
    assert "<script" not in text
    page = Tags(text)
    assert not page.tags & {"script", "iframe", "object", "embed", "link"}
    assert not {name for name in page.attributes if name.startswith("on")}
    assert EVIL in page.text


def test_markup_in_section_titles_and_anchors_is_escaped():
    text = render_page(
        "base.html.j2",
        title=EVIL,
        subtitle=EVIL,
        head=EVIL,
        sections=[(EVIL, EVIL, EVIL)],
    )
    assert "<script" not in text
    page = Tags(text)
    assert "script" not in page.tags
    assert "onerror" not in page.attributes
    assert page.text.count(EVIL) >= 6

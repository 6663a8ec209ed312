"""Tables, charts and the report of a classifier's scores."""

import csv
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from segnetr.config.schema.classification import ClassifyEvaluateConfig
from segnetr.errors import ReadError
from segnetr.metrics.classification import LabeledPredictions
from segnetr.metrics.classification_summary import summarize_classes
from segnetr.outputs.charts.classification import draw_confusions, draw_reliability
from segnetr.outputs.reports.classification_report import (
    ClassificationReport,
    render_classification_report,
)
from segnetr.outputs.tables.classification import (
    UnscoredCase,
    class_summary_table,
    read_class_summary,
    write_class_cases_csv,
    write_class_summary,
    write_classes_csv,
    write_predictions_csv,
)

CLASSES = ("nevus", "<melanoma>", "absent, as here")


def answers(*, multi_label: bool = False) -> LabeledPredictions:
    generator = np.random.default_rng(0)
    ground_truth = np.zeros((20, 3), np.int64)
    ground_truth[np.arange(20), np.arange(20) % 2] = 1
    scores = generator.random((20, 3)) + ground_truth
    return LabeledPredictions(
        case_ids=tuple(f"c{i}" for i in range(20)),
        probabilities=scores / 2 if multi_label else scores / scores.sum(axis=1, keepdims=True),
        ground_truth=ground_truth,
        multi_label=multi_label,
        groups=tuple(f"p{i // 2}" for i in range(20)),
    )


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def summary(*, multi_label: bool = False):
    return summarize_classes(
        answers(multi_label=multi_label), CLASSES, bins=10, bootstrap=50, seed=0
    )


@pytest.mark.parametrize("multi_label", [False, True])
def test_class_summary_round_trips(tmp_path, multi_label):
    path = tmp_path / "summary.json"
    unscored = [UnscoredCase(case_id="x", reason="torn")]
    written = summary(multi_label=multi_label)
    config = ClassifyEvaluateConfig()
    write_class_summary(path, written, title="test", config=config, unscored=unscored)
    back = read_class_summary(path)
    assert back.summary == written
    assert back.unscored == tuple(unscored)
    assert back.settings["calibration_bins"] == 15


@pytest.mark.parametrize("content", ["", "{}", '{"format": 1, "task": "other"}', "[1]"])
def test_error_for_unrelated_summary_is_one_line(tmp_path, content):
    path = tmp_path / "summary.json"
    path.write_text(content)
    with pytest.raises(ReadError) as caught:
        read_class_summary(path)
    assert "\n" not in str(caught.value)


def test_case_table_has_all_digits_and_empty_cells_for_undefined_values(tmp_path):
    found = answers()
    write_class_cases_csv(tmp_path / "cases.csv", found, CLASSES)
    rows = read_rows(tmp_path / "cases.csv")
    assert len(rows) == 20
    assert rows[3]["ground_truth"] == "<melanoma>"
    assert rows[3]["group"] == "p1"
    values = [[float(row[f"p_{name}"]) for name in CLASSES] for row in rows]
    assert np.array_equal(np.array(values), found.probabilities)
    right = [row["right"] == "1" for row in rows]
    assert np.mean(right) == next(s.value for s in summary().scores if s.metric == "accuracy")
    write_classes_csv(tmp_path / "classes.csv", summary().classes)
    last = read_rows(tmp_path / "classes.csv")[2]
    assert (last["class"], last["cases"], last["recall"], last["auroc"]) == (
        CLASSES[2],
        "0",
        "",
        "",
    )


def test_predictions_list_the_predicted_class_or_classes(tmp_path):
    path = tmp_path / "p.csv"
    write_predictions_csv(
        path, ["a", "b"], [[0.2, 0.8], [0.6, 0.4]], classes="xy", multi_label=False
    )
    assert path.read_text() == "file,decided,p_x,p_y\na,y,0.2,0.8\nb,x,0.6,0.4\n"
    write_predictions_csv(
        path, ["a", "b"], [[0.7, 0.8], [0.1, 0.4]], classes="xy", multi_label=True
    )
    assert path.read_text() == "file,decided,p_x,p_y\na,x; y,0.7,0.8\nb,,0.1,0.4\n"
    write_predictions_csv(path, [], [], classes="xy", multi_label=False)
    assert path.read_text() == "file,decided,p_x,p_y\n"


@pytest.mark.parametrize("count", [2, 3, 12, 40, 150])
def test_confusion_charts_are_well_formed_and_fit_their_frame(count):
    generator = np.random.default_rng(count)
    table = (
        generator.integers(0, 9, (count, count)) * (generator.random((count, count)) < 0.3)
    ).tolist()
    names = [f"class <{i}>" for i in range(count)]
    root = ElementTree.fromstring(draw_confusions(table, names))
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    cells = [e for e in root if e.attrib.get("class") == "cell"]
    assert len(cells) == int((np.array(table) > 0).sum())
    for cell in cells:
        x, y, w, h = (float(cell.attrib[k]) for k in ("x", "y", "width", "height"))
        assert left <= x
        assert x + w <= left + width + 0.1
        assert top <= y
        assert y + h <= top + height + 0.1
    lowest = max(float(e.attrib["y"]) for e in root if e.tag == "text")
    assert lowest + 10 <= top + height
    numbers = [e for e in root if e.tag == "text" and (e.text or "").isdecimal()]
    assert len(numbers) == (len(cells) if count <= 12 else 0)


def test_too_many_classes_for_a_chart_are_rejected():
    with pytest.raises(ValueError, match="too many"):
        draw_confusions([[0] * 201] * 201, [str(i) for i in range(201)])


def test_reliability_chart_skips_empty_bins():
    found = summary()
    root = ElementTree.fromstring(draw_reliability(found.bins))
    bars = [e for e in root if e.attrib.get("class") == "bin"]
    assert len(bars) == sum(b.count > 0 for b in found.bins)
    assert sum(b.count for b in found.bins) == 20


@pytest.mark.parametrize("multi_label", [False, True])
def test_page_shows_all_sections_escapes_names_and_lists_undefined_scores(multi_label):
    content = ClassificationReport(
        title="cvt_13 on <x>",
        facts={"Network": "cvt_13"},
        summary=summary(multi_label=multi_label),
        scored="the test part, 20 cases",
        curves=[{"step": i, "phase": "train", "total": 1 / i} for i in range(1, 4)]
        + [{"step": 2, "phase": "validation", "auroc": 0.7, "balanced_accuracy": 0.6}],
        settings_yaml="task: classification\n",
    )
    page = render_classification_report(content)
    assert "<melanoma>" not in page
    assert "&lt;melanoma&gt;" in page
    assert "no case of absent, as here" in page
    assert "10 groups" in page
    assert "AUROC" in page
    assert ("Confusions</strong>" in page) is not multi_label
    assert "Calibration</strong>" in page
    assert not re.search(r'(src|href)="http', page)
    ElementTree.fromstring(
        page.partition("<main>")[2].partition("</main>")[0].join(["<m>", "</m>"])
    )


def test_class_page_without_scores_has_a_message():
    page = render_classification_report(
        ClassificationReport(title="x", notes=["Nothing was scored."])
    )
    assert "No case has been scored yet" in page


def test_terminal_table_lists_undefined_scores():
    text = class_summary_table(summary())
    assert "balanced_accuracy: mean without absent, as here" in text
    assert "no case of absent, as here" in text

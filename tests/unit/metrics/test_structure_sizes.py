"""Test structure sizes, ejection fractions and their agreement against worked examples."""

import csv

import numpy as np
import pytest

from segnetr.data.datasets.acdc import read_acdc
from segnetr.data.readers.read_files import read_mask_file
from segnetr.metrics import score_masks
from segnetr.metrics.structure_sizes import measure_agreement
from segnetr.outputs.charts.box_plot import MOST_BOXES, Box, BoxChart, draw_box_chart
from segnetr.outputs.reports.case_charts import chart_agreement, chart_classes, chart_groups
from segnetr.outputs.reports.case_section import read_case_section
from segnetr.outputs.reports.run_report import RunReport, render_run_report
from segnetr.outputs.tables.case_records import CaseRecord, read_case_records, write_case_records
from segnetr.outputs.tables.scores import write_per_case_csv
from segnetr.outputs.tables.structure_sizes import compute_sizes, write_sizes

HEART = ("background", "right ventricle", "myocardium", "left ventricle")
GRID, SPACING = (10, 10, 10), (2.0, 2.0, 10.0)  # 0.04 ml per voxel


def volume(left, *, right=50):
    """Return a volume with given voxel counts of the left and right ventricle."""
    labels = np.zeros(1000, np.uint8)
    labels[:left] = 3
    labels[500 : 500 + right] = 1
    return labels.reshape(GRID)


def heart(patients):
    """Return scores and records with true and predicted left-ventricle voxels of both phases."""
    scores, records = [], []
    for name, (group, phases) in patients.items():
        for phase, (true, predicted) in phases.items():
            case_id = f"{name}_{phase}"
            scores += score_masks(
                volume(predicted), volume(true), classes=HEART, case_id=case_id, spacing=SPACING
            )
            records.append(
                CaseRecord(
                    case_id=case_id,
                    patient_id=name,
                    grid=GRID,
                    spacing=SPACING,
                    seconds=0.5,
                    facts={"phase": phase, "group": group, "stratum": group},
                )
            )
    return scores, records


PATIENTS = {
    "p1": ("NOR", {"ED": (200, 210), "ES": (80, 84)}),
    "p2": ("DCM", {"ED": (300, 300), "ES": (240, 210)}),
    "p3": ("NOR", {"ED": (250, 0), "ES": (100, 90)}),
}


def test_volumes_and_ejection_fractions_follow_from_the_voxel_counts():
    sizes, ejections = compute_sizes(*heart(PATIENTS))
    left = {e.patient_id: e for e in ejections if e.class_name == "left ventricle"}
    assert left["p1"].true_ed == pytest.approx(200 * 0.04)
    assert left["p1"].true_fraction == pytest.approx(60)
    assert left["p1"].predicted_fraction == pytest.approx(60)
    assert left["p2"].true_fraction == pytest.approx(20)
    assert left["p2"].predicted_fraction == pytest.approx(30)
    assert left["p3"].predicted_fraction is None  # missed at the end of diastole
    assert {size.unit for size in sizes} == {"ml"}
    assert all(size.whole == pytest.approx(40) for size in sizes)
    assert "myocardium" not in {e.class_name for e in ejections}


def test_patient_with_one_phase_has_no_ejection_fraction():
    scores, records = heart({"p1": ("NOR", {"ED": (200, 200)})})
    assert compute_sizes(scores, records)[1] == []


def test_agreement_has_bias_and_limits_of_agreement():
    found = measure_agreement([10, 20, 30], [12, 21, 30])
    assert found.bias == 1
    assert found.high == pytest.approx(1 + 1.96 * 1)  # differences 2, 1, 0: standard deviation 1
    assert found.low == pytest.approx(1 - 1.96 * 1)
    assert measure_agreement([1], [2]).low is None
    with pytest.raises(ValueError, match="no pairs"):
        measure_agreement([], [])


def test_areas_are_fractions_of_the_image_if_the_pixel_size_is_unknown():
    ground_truth = np.zeros((20, 25), np.uint8)
    ground_truth[:10] = 1
    scores = score_masks(
        ground_truth[::-1], ground_truth, classes=("background", "lesion"), case_id="a"
    )
    record = CaseRecord(case_id="a", patient_id=None, grid=(20, 25), spacing=None, seconds=0.1)
    [size] = compute_sizes(scores, [record])[0]
    assert (size.true, size.whole, size.unit) == (250, 500, "px")
    [chart] = chart_agreement([size], [])
    assert (chart.dots[0].x, chart.dots[0].y) == (50, 0)
    assert chart.title == "Area, lesion"


def test_size_tables_list_every_case_and_every_patient(tmp_path):
    scores, records = heart(PATIENTS)
    write_sizes(tmp_path, scores, records)
    with (tmp_path / "sizes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 3
    with (tmp_path / "ejection.csv").open(newline="") as file:
        patients = [r for r in csv.DictReader(file) if r["ventricle"] == "left ventricle"]
    assert [r["patient"] for r in patients] == ["p1", "p2", "p3"]
    assert float(patients[1]["predicted_EF_percent"]) == pytest.approx(30)
    assert patients[2]["predicted_EF_percent"] == ""


def test_case_records_round_trip(tmp_path):
    records = heart(PATIENTS)[1]
    records.append(CaseRecord(case_id="x", patient_id=None, grid=(3, 4), spacing=None, seconds=0))
    write_case_records(tmp_path / "cases.json", records)
    assert read_case_records(tmp_path / "cases.json") == records
    assert read_case_records(tmp_path / "none.json") == []


def test_groups_split_the_cases_and_each_split_is_listed_once():
    charts = chart_groups(*heart(PATIENTS))
    assert [chart.title for chart in charts] == ["Dice by phase", "Dice by group"]
    assert {box.name: len(box.values) for box in charts[1].boxes} == {"DCM": 2, "NOR": 4}


def test_boxes_have_quartiles_and_outliers():
    values = [0.1, *np.linspace(0.8, 0.9, 60)]
    synthetic = draw_box_chart(
        BoxChart(title="t", label="l", boxes=[Box(name="a", values=values)], is_share=True)
    )
    assert synthetic.count("<circle") == 1  # only the outlier of many values
    assert "a median 0.849, quartiles 0.824 to 0.875 (61)" in synthetic
    with pytest.raises(ValueError, match="boxes where"):
        draw_box_chart(BoxChart(title="t", label="l", boxes=[], is_share=True))
    many = [Box(name="a", values=[1.0])] * (MOST_BOXES + 1)
    with pytest.raises(ValueError, match="boxes where"):
        draw_box_chart(BoxChart(title="t", label="l", boxes=many, is_share=False))


def test_undefined_distances_are_excluded_from_boxes():
    empty = np.zeros((8, 8), np.uint8)
    full = np.ones((8, 8), np.uint8)
    scores = score_masks(empty, empty, classes=("background", "a"), case_id="1")
    scores += score_masks(full, full, classes=("background", "a"), case_id="2")
    charts = {chart.title: chart for chart in chart_classes(scores)}
    assert len(charts["Dice by class"].boxes[0].values) == 2
    assert charts["HD95 (px) by class"].boxes[0].values == [0.0]


def render_section(folder):
    """Render the section from the files of an evaluation."""
    return render_run_report(RunReport(title="t", cases=read_case_section(folder)))


def test_section_shows_only_what_the_evaluation_files_contain(tmp_path):
    assert 'id="variation"' not in render_section(tmp_path)
    scores, records = heart(PATIENTS)
    write_per_case_csv(tmp_path / "per_case.csv", scores)
    old = render_section(tmp_path)
    assert 'id="variation"' in old
    assert 'id="sizes"' not in old
    assert 'id="calibration"' not in old
    write_case_records(tmp_path / "cases.json", records)
    new = read_case_section(tmp_path)
    page = render_section(tmp_path)
    for words in ("Dice by group", "Ejection fraction, left ventricle", "Volume, myocardium",
                  "+1.96 SD", "true EF percent"):  # fmt: skip
        assert words in page, words
    assert "median 0.50 s" in new.times["Prediction of a case"]


def test_ejection_fractions_of_real_hearts_are_plausible(real_data):
    scores, records = [], []
    for case in read_acdc(real_data / "acdc")[:12]:
        mask = read_mask_file(case.mask, classes=len(HEART))
        scores += score_masks(
            mask.array, mask.array, classes=HEART, case_id=case.case_id, spacing=mask.spacing
        )
        records.append(
            CaseRecord(
                case_id=case.case_id,
                patient_id=case.patient_id,
                grid=mask.array.shape,
                spacing=mask.spacing,
                seconds=0.0,
                facts=case.extra,
            )
        )
    sizes, ejections = compute_sizes(scores, records)
    assert len(ejections) == 12  # six patients, two ventricles
    assert all(5 < ejection.true_fraction < 90 for ejection in ejections)
    assert all(size.true == size.predicted for size in sizes)

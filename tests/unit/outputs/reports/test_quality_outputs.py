"""Predicted quality as a table and as a section of the report; uncertainty maps as files."""

import csv
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig
from segnetr.data.readers.image_file import ImageFile
from segnetr.engine.inference.memory import count_need
from segnetr.engine.inference.predictor import Predictor
from segnetr.engine.quality.estimator import Quality
from segnetr.errors import ReadError
from segnetr.metrics import Score
from segnetr.outputs.masks.output_paths import has_results, plan_output_paths
from segnetr.outputs.masks.uncertainty_writer import plan_uncertainty
from segnetr.outputs.masks.writer import write_prediction
from segnetr.outputs.reports.case_section import CaseSection
from segnetr.outputs.reports.figures import Figure, read_figures, write_figures
from segnetr.outputs.reports.quality_section import (
    QualityCase,
    format_badge,
    format_warning,
    measure_quality_agreement,
    pair_quality,
)
from segnetr.outputs.reports.run_report import RunReport, render_run_report
from segnetr.outputs.tables.case_records import CaseRecord, read_case_records, write_case_records
from segnetr.outputs.tables.predictions import (
    COLUMNS,
    describe_quality,
    write_predictions_table,
)

PIXEL = b"\x89PNG\r\n\x1a\n" + bytes(8)


def make_quality(dice: float, *reasons: str) -> Quality:
    return Quality(
        dice=dice,
        low=max(0.0, dice - 0.1),
        high=min(1.0, dice + 0.1),
        level=0.9,
        is_ood=bool(reasons),
        ood_score=1.5 if reasons else 0.4,
        reasons=reasons,
    )


def record(name: str, quality: Quality | None) -> CaseRecord:
    return CaseRecord(
        case_id=name, patient_id=None, grid=(4, 4), spacing=None, seconds=0.1, quality=quality
    )


def test_table_has_a_row_for_each_mask_and_empty_cells_without_quality(tmp_path):
    records = [
        {
            "input": "in/a, b.png",
            "mask": "a, b.png",
            "quality": describe_quality(make_quality(0.8)),
        },
        {
            "input": "c.png",
            "mask": "c.png",
            "quality": describe_quality(make_quality(0.3, "x", "y")),
        },
        {"input": "d.png", "mask": "d.png", "quality": None},
        {"input": "e.png", "mask": "e.png"},
    ]
    write_predictions_table(tmp_path / "predictions.csv", records)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["input"] == "in/a, b.png"
    assert [row["predicted_dice"] for row in rows] == ["0.8", "0.3", "", ""]
    assert [row["out_of_distribution"] for row in rows] == ["no", "yes", "", ""]
    assert rows[1]["reason"] == "x; y"


def test_records_store_quality_and_old_records_without_it_are_read(tmp_path):
    records = [record("a", make_quality(0.7, "embedding 2.0 times its limit")), record("b", None)]
    write_case_records(tmp_path / "cases.json", records)
    assert read_case_records(tmp_path / "cases.json") == records
    text = (tmp_path / "cases.json").read_text().replace('"quality": null', '"older": null')
    (tmp_path / "cases.json").write_text(text)
    assert read_case_records(tmp_path / "cases.json")[1].quality is None
    (tmp_path / "cases.json").write_text(text.replace('"level": 0.9', '"level": "x"'))
    with pytest.raises(ReadError):
        read_case_records(tmp_path / "cases.json")


def test_files_of_version_0_1_are_read(tmp_path):
    quality = make_quality(0.7, "spacing not known")
    write_case_records(tmp_path / "cases.json", [record("a", quality)])
    text = (tmp_path / "cases.json").read_text()
    old = text.replace('"ood_score"', '"novelty"').replace('"is_ood"', '"is_unlike"')
    assert old != text
    (tmp_path / "cases.json").write_text(old)
    assert read_case_records(tmp_path / "cases.json") == [record("a", quality)]
    described = describe_quality(quality)
    described["novelty"] = described.pop("ood_score")
    table = tmp_path / "predictions.csv"
    write_predictions_table(table, [{"input": "a", "mask": "a", "quality": described}])
    with table.open(newline="") as file:
        assert [row["ood_score"] for row in csv.DictReader(file)] == ["1.5"]


def make_cases(pairs: list[tuple[float, float]]) -> list[QualityCase]:
    return [
        QualityCase(case_id=f"<{number}>", dice=true, quality=make_quality(predicted))
        for number, (predicted, true) in enumerate(pairs)
    ]


def test_true_dice_of_a_case_is_the_mean_over_its_classes():
    scores = [
        Score(case_id="a", class_name=name, metric=metric, value=value)
        for name, metric, value in (
            ("x", "dice", 0.4), ("y", "dice", 0.8), ("x", "iou", 0.1), ("y", "hd95_px", None),
        )
    ]  # fmt: skip
    cases = pair_quality(scores, [record("a", make_quality(0.5)), record("b", make_quality(0.5))])
    assert [(case.case_id, case.dice) for case in cases] == [("a", pytest.approx(0.6))]
    assert pair_quality(scores, [record("a", None)]) == []


def test_agreement_counts_order_error_and_intervals():
    found = measure_quality_agreement(
        make_cases([(0.9, 0.95), (0.8, 0.6), (0.5, 0.45), (0.4, 0.5)])
    )
    assert found.spearman == pytest.approx(0.8)
    assert found.error == pytest.approx(0.1)
    assert found.coverage == 0.75
    assert (found.cases, found.level, found.out_of_distribution) == (4, 0.9, 0)
    with pytest.raises(ValueError, match="no case has a predicted quality"):
        measure_quality_agreement([])


def test_quality_section_has_a_dot_and_a_badge_for_each_case_and_escapes_names():
    cases = make_cases([(0.9, 0.95), (0.8, 0.6), (0.5, 0.45)])
    outlier = QualityCase(case_id="s", dice=0.1, quality=make_quality(0.9, "intensity <9>"))
    page = render_run_report(RunReport(title="t", cases=CaseSection(quality=[*cases, outlier])))
    assert page.count("<circle") == 4
    assert page.count('<span class="badge">') == 3
    assert page.count('<span class="badge alarm">out of distribution: intensity &lt;9&gt;') == 1
    assert "<0>" not in page
    assert page.index("intensity &lt;9&gt;") < page.index(
        "&lt;2&gt;</th>"
    )  # lowest predicted quality first
    assert "Spearman" in page
    assert 'id="quality"' not in render_run_report(RunReport(title="t"))


def test_badges_of_figures_are_stored_and_drawn(tmp_path):
    quality = make_quality(0.9, "spacing not known")
    figure = Figure(
        name="a", title="Best: a", caption="Dice 0.9", alt="a", data=PIXEL,
        badge=format_badge(quality), alarm=format_warning(quality),
    )  # fmt: skip
    write_figures(tmp_path, [figure])
    assert read_figures(tmp_path) == [figure]
    page = render_run_report(RunReport(title="t", figures=[figure]))
    assert "predicted 0.90 (0.80 to 1.00)" in page
    assert "out of distribution: spacing not known" in page
    assert 'class="badge' not in render_run_report(RunReport(title="t", figures=[Figure(
        name="a", title="Best: a", caption="", alt="a", data=PIXEL,
    )]))  # fmt: skip


def make_predictor(tta: str) -> Predictor:
    return Predictor(
        nn.Conv2d(3, 2, 1),
        config=PredictConfig(tta=tta),  # type: ignore[arg-type]
        intensity=IntensityConfig(),
        image_size=(32, 32),
        num_classes=2,
        channels=3,
    )


@pytest.mark.parametrize(("tta", "maps"), [("none", 1), ("flips", 2)])
def test_memory_of_uncertainty_maps_is_counted(tta, maps):
    image = ImageFile(path=Path("a.nii"), array=np.zeros((64, 64, 50), np.int16), kind="volume")
    predictor = make_predictor(tta)
    more = count_need(predictor, image, keep_uncertainty=True).fixed
    assert more - count_need(predictor, image).fixed >= 4 * maps * 64 * 64 * 50


def test_missing_uncertainty_maps_raise_an_error(tmp_path):
    image = ImageFile(path=Path("a.png"), array=np.zeros((40, 40, 3), np.uint8), kind="image")
    prediction = make_predictor("none").predict(image)
    with pytest.raises(ValueError, match="keep_uncertainty"):
        plan_uncertainty(prediction, image, tmp_path / "a.png")


def test_uncertainty_maps_of_a_volume_without_affine_are_arrays(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (40, 36, 3), dtype=np.uint8)
    image = ImageFile(path=Path("pages.tif"), array=values, kind="volume")
    prediction = make_predictor("flips").predict(image, keep_uncertainty=True)
    written = write_prediction(
        prediction, image, out=tmp_path, relative=Path("pages.tif"), save_uncertainty=True
    )
    names = [path.name for path in written]
    assert names == ["pages.tif", "pages_entropy.npz", "pages_variance.npz"]
    with np.load(tmp_path / "pages_entropy.npz") as stored:
        assert prediction.uncertainty is not None
        assert np.array_equal(stored["entropy"], prediction.uncertainty.entropy)
    assert has_results(
        tmp_path / "pages.tif", overlay=False, save_prob=False, save_uncertainty=True
    )
    (tmp_path / "pages_entropy.npz").unlink()
    assert not has_results(
        tmp_path / "pages.tif", overlay=False, save_prob=False, save_uncertainty=True
    )


def test_masks_and_maps_of_two_inputs_have_different_names(tmp_path):
    inputs = [(Path("in/a.png"), Path("a.png")), (Path("in/a_entropy.png"), Path("a_entropy.png"))]
    names = {item.relative.name for item in plan_output_paths(inputs, out=tmp_path)}
    assert len(names) == 2
    assert not {"a.png", "a_entropy.png"} <= names

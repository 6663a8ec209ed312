import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segnetr.data.readers.image_file import ImageFile
from segnetr.errors import ReadError
from segnetr.metrics import Score
from segnetr.outputs.reports.case_comparison import (
    FIGURE_SIDE,
    GROUND_TRUTH_COLOR,
    PREDICTION_COLOR,
    compare_case,
    compare_predictions,
)
from segnetr.outputs.reports.case_selection import select_cases
from segnetr.outputs.reports.figures import (
    Figure,
    choose_within,
    media_suffix,
    read_figures,
    write_figures,
)
from segnetr.outputs.reports.run_report import RunReport, render_run_report
from segnetr.outputs.reports.volume_figure import draw_slices


def gray_image(shape, *, value=128):
    return ImageFile(path=Path("a.png"), array=np.full(shape, value, np.uint8), kind="image")


def decode(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def count_near(pixels, color):
    return int((np.abs(pixels - color).max(axis=2) < 40).sum())


def square(top, side, *, shape=(200, 300)):
    mask = np.zeros(shape, np.uint8)
    mask[top : top + side, 100 : 100 + side] = 1
    return mask


def dice_scores(values):
    return [
        Score(case_id=case, class_name="lesion", metric="dice", value=value)
        for case, value in values.items()
    ]


def panels(data):
    """The plain and the drawn panel without the legend."""
    pixels = decode(data)[: FIGURE_SIDE * 200 // 300]
    return pixels[:, :FIGURE_SIDE], pixels[:, -FIGURE_SIDE:]


def test_outlines_follow_the_mask_edges_and_the_left_image_has_none():
    left, right = panels(
        compare_case(
            gray_image((200, 300, 3)), prediction=square(30, 60), ground_truth=square(100, 60)
        )
    )
    assert np.abs(left - 128).max() < 20
    scale = FIGURE_SIDE / 300
    for color, top in ((PREDICTION_COLOR, 30), (GROUND_TRUTH_COLOR, 100)):
        rows, columns = np.nonzero(np.abs(right - color).max(axis=2) < 40)
        assert rows.min() == pytest.approx(top * scale, abs=4)
        assert rows.max() == pytest.approx((top + 60) * scale, abs=4)
        assert columns.min() == pytest.approx(100 * scale, abs=4)


@pytest.mark.parametrize("missing", ["prediction", "ground_truth"])
def test_an_empty_mask_has_no_outline(missing):
    masks = {"prediction": square(30, 60), "ground_truth": square(30, 60)}
    masks[missing] = np.zeros((200, 300), np.uint8)
    _, right = panels(compare_case(gray_image((200, 300, 1)), **masks))
    seen = {
        "prediction": count_near(right, PREDICTION_COLOR),
        "ground_truth": count_near(right, GROUND_TRUTH_COLOR),
    }
    assert seen[missing] == 0
    assert sum(seen.values()) > 200


def test_every_class_is_outlined():
    one, two = square(30, 40), square(30, 40)
    two[120:160, 100:140] = 2
    image, plain = gray_image((200, 300, 3)), np.zeros((200, 300), np.uint8)
    synthetic = [
        panels(compare_case(image, prediction=plain, ground_truth=mask))[1] for mask in (one, two)
    ]
    counts = [count_near(pixels, GROUND_TRUTH_COLOR) for pixels in synthetic]
    assert counts[1] > 1.5 * counts[0]


def test_structure_thinner_than_a_panel_pixel_is_visible():
    shape = (3000, 4000)
    mask = np.zeros(shape, np.uint8)
    mask[1500:1502, 2000:2002] = 1
    data = compare_case(gray_image((*shape, 3)), prediction=np.zeros_like(mask), ground_truth=mask)
    assert count_near(decode(data)[:380], GROUND_TRUTH_COLOR) > 3


@pytest.mark.parametrize("shape", [(3000, 4000), (33, 900), (900, 33), (28, 28)])
def test_images_of_any_size_give_bounded_figures_with_a_legend(shape):
    empty = np.zeros(shape, np.uint8)
    pixels = decode(compare_case(gray_image((*shape, 3)), prediction=empty, ground_truth=empty))
    assert max(pixels.shape[:2]) <= 2 * FIGURE_SIDE + 100
    assert pixels.shape[1] >= 200
    assert count_near(pixels[-36:], GROUND_TRUTH_COLOR) > 20
    assert count_near(pixels[-36:], PREDICTION_COLOR) > 20


def test_volume_figure_shows_slice_with_most_ground_truth_in_true_proportions():
    array = np.zeros((40, 30, 5), np.int16)
    array[:, :, 3] = np.arange(40)[:, None] * 50  # brighter to the right
    ground_truth = np.zeros(array.shape, np.uint8)
    ground_truth[30:38, 4:9, 3] = 1  # first axis: right; second axis: low
    ground_truth[1:3, 4:9, 1] = 1
    image = ImageFile(path=Path("a.nii"), array=array, kind="volume", spacing=(1.0, 2.0, 5.0))
    pixels = decode(
        compare_case(image, prediction=np.zeros_like(ground_truth), ground_truth=ground_truth)
    )
    height, width = FIGURE_SIDE, round(FIGURE_SIDE * 40 / 60)
    assert pixels.shape[:2] == (height + 36, 2 * width + 8)
    assert pixels[10, width - 10].mean() > 200 > 50 > pixels[10, 10].mean()
    right = pixels[:height, -width:]
    rows, columns = np.nonzero(np.abs(right - GROUND_TRUTH_COLOR).max(axis=2) < 40)
    assert rows.mean() > height / 2
    assert columns.mean() > width / 2


def test_best_median_and_worst_cases_are_selected_once_each():
    selected_cases = select_cases(
        dice_scores({f"c{number:02}": number / 20 for number in range(21)}), each=2
    )
    assert [(case.rank, case.number, case.case_id) for case in selected_cases] == [
        ("best", 1, "c20"), ("best", 2, "c19"), ("median", 1, "c11"), ("median", 2, "c10"),
        ("worst", 1, "c01"), ("worst", 2, "c00"),
    ]  # fmt: skip


def test_few_cases_are_selected_worst_first_and_at_most_once():
    for count in range(8):
        values = {f"c{number}": number / 10 for number in range(count)}
        selected_cases = select_cases(dice_scores(values), each=2)
        assert (
            len({case.case_id for case in selected_cases}) == len(selected_cases) == min(6, count)
        )
        if count == 1:
            assert selected_cases[0].rank == "worst"
        if count == 2:
            assert [case.rank for case in selected_cases] == ["best", "worst"]


def test_cases_are_ranked_by_their_mean_over_classes():
    scores = [
        Score(case_id=case, class_name=name, metric="dice", value=value)
        for case, values in {"a": (0.9, 0.1), "b": (0.4, 0.8), "c": (None, 0.55)}.items()
        for name, value in zip(("left", "right"), values, strict=True)
    ]
    selected_cases = select_cases(scores, each=1)
    assert [(case.rank, case.case_id) for case in selected_cases] == [
        ("best", "b"), ("median", "c"), ("worst", "a")
    ]  # fmt: skip
    assert selected_cases[0].value == pytest.approx(0.6)


def test_figures_round_trip(tmp_path):
    empty = np.zeros((40, 50), np.uint8)
    data = compare_case(gray_image((40, 50, 3)), prediction=empty, ground_truth=empty)
    figures = [
        Figure(name=name, title=f"Best: {name}", caption="Dice 1", alt="an image", data=data)
        for name in ("best-1", "best-2")
    ]
    paths = write_figures(tmp_path / "figures", figures)
    assert [path.name for path in paths] == ["best-1.jpg", "best-2.jpg"]
    assert read_figures(tmp_path / "figures") == figures
    paths[0].unlink()
    with pytest.raises(ReadError, match="not an index of figures"):
        read_figures(tmp_path / "figures")


def test_a_folder_without_index_has_no_figures(tmp_path):
    assert read_figures(tmp_path) == []


def test_file_that_is_not_an_image_is_rejected():
    with pytest.raises(ValueError, match="PNG, JPEG or WebP"):
        media_suffix(b"<svg onload=alert(1)>")


def volume(depth=40):
    array = np.random.default_rng(0).integers(0, 900, (30, 20, depth)).astype(np.int16)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    return ImageFile(
        path=Path("v.nii"), array=array, kind="volume", affine=affine, spacing=(1.0, 2.0, 3.0)
    )


def box_in(depth, start, stop):
    labels = np.zeros((30, 20, depth), np.uint8)
    labels[8:20, 5:14, start:stop] = 1
    return labels


def test_slices_span_the_foreground_of_a_volume():
    sheet, slices = draw_slices(
        volume(), prediction=box_in(40, 3, 9), ground_truth=box_in(40, 5, 12)
    )
    assert len(slices) == 9  # 3 to 11
    first, last = decode(slices[0]), decode(slices[-1])
    assert first.shape[:2] == (320, 240)  # 20 x 2 mm high, 30 x 1 mm wide
    assert count_near(first, PREDICTION_COLOR) > 100 > count_near(first, GROUND_TRUTH_COLOR)
    assert count_near(last, GROUND_TRUTH_COLOR) > 100 > count_near(last, PREDICTION_COLOR)
    assert max(decode(sheet).shape[:2]) <= 800
    _, many = draw_slices(volume(60), prediction=box_in(60, 0, 60), ground_truth=box_in(60, 0, 60))
    assert len(many) == 16
    _, none = draw_slices(volume(3), prediction=box_in(3, 0, 0), ground_truth=box_in(3, 0, 0))
    assert len(none) == 3


def test_predictions_are_drawn_side_by_side_on_the_slice_where_they_differ():
    first, second = box_in(10, 2, 8), box_in(10, 2, 8)
    second[8:20, 5:14, 6] = 0
    synthetic = decode(
        compare_predictions(
            volume(10),
            predictions={"one": first, "a name too long " * 9: second},
            ground_truth=first,
        )
    )
    half = synthetic.shape[1] // 2
    assert count_near(synthetic[40:-40, :half], PREDICTION_COLOR) > 100
    assert count_near(synthetic[40:-40, half:], PREDICTION_COLOR) == 0
    assert count_near(synthetic[40:-40, half:], GROUND_TRUTH_COLOR) > 100


def image_of(size):
    return b"\x89PNG\r\n\x1a\n" + bytes(size - 8)


def test_worst_cases_have_priority_if_a_page_would_be_too_large():
    figures = [
        Figure(
            name=str(number),
            title="t",
            caption="",
            alt="",
            data=image_of(100),
            slices=(image_of(200),),
        )
        for number in range(4)
    ]
    shown, notes = choose_within(figures, most_bytes=850)
    assert [figure.name for figure in shown] == ["0", "1", "2", "3"]
    assert [len(figure.slices) for figure in shown] == [0, 0, 1, 1]
    assert "single slices of 2" in notes[0]
    shown, notes = choose_within(figures, most_bytes=450)
    assert [figure.name for figure in shown] == ["2", "3"]
    assert notes[0].startswith("To keep this page below 10 MB, 2 images")
    assert choose_within(figures, most_bytes=5000) == (figures, [])


def test_slices_of_figures_round_trip(tmp_path):
    figure = Figure(
        name="worst-1", title="t", caption="c", alt="a", data=image_of(20),
        slices=(image_of(30), image_of(40)),
    )  # fmt: skip
    assert len(write_figures(tmp_path, [figure])) == 3
    assert read_figures(tmp_path) == [figure]


def test_sliders_of_one_page_are_independent():
    one = Figure(
        name="best-1",
        title="t",
        caption="",
        alt="",
        data=image_of(9),
        slices=(image_of(9),) * 2,
    )
    page = render_run_report(RunReport(title="t", figures=[one, one]))
    assert page.count('name="slices-1"') == page.count('name="slices-2"') == 2

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segnetr.data.readers.image_file import ImageFile
from segnetr.errors import ReadError
from segnetr.metrics import Score
from segnetr.outputs.reports.case_comparison import (
    LONGEST_SIDE,
    PREDICTION_COLOUR,
    TRUTH_COLOUR,
    compare_case,
    compare_predictions,
)
from segnetr.outputs.reports.case_selection import pick_cases
from segnetr.outputs.reports.elements import draw_figures
from segnetr.outputs.reports.figures import (
    Figure,
    choose_within,
    media_suffix,
    read_figures,
    write_figures,
)
from segnetr.outputs.reports.volume_figure import draw_slices


def grey_picture(shape, *, value=128):
    return ImageFile(path=Path("a.png"), array=np.full(shape, value, np.uint8), kind="picture")


def decode(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def count_near(picture, colour):
    return int((np.abs(picture - colour).max(axis=2) < 40).sum())


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
    picture = decode(data)[: LONGEST_SIDE * 200 // 300]
    return picture[:, :LONGEST_SIDE], picture[:, -LONGEST_SIDE:]


def test_both_outlines_lie_where_the_masks_end_and_the_left_picture_is_plain():
    left, right = panels(
        compare_case(grey_picture((200, 300, 3)), prediction=square(30, 60), truth=square(100, 60))
    )
    assert np.abs(left - 128).max() < 20
    scale = LONGEST_SIDE / 300
    for colour, top in ((PREDICTION_COLOUR, 30), (TRUTH_COLOUR, 100)):
        rows, columns = np.nonzero(np.abs(right - colour).max(axis=2) < 40)
        assert rows.min() == pytest.approx(top * scale, abs=4)
        assert rows.max() == pytest.approx((top + 60) * scale, abs=4)
        assert columns.min() == pytest.approx(100 * scale, abs=4)


@pytest.mark.parametrize("missing", ["prediction", "truth"])
def test_an_empty_mask_has_no_outline(missing):
    masks = {"prediction": square(30, 60), "truth": square(30, 60)}
    masks[missing] = np.zeros((200, 300), np.uint8)
    _, right = panels(compare_case(grey_picture((200, 300, 1)), **masks))
    seen = {
        "prediction": count_near(right, PREDICTION_COLOUR),
        "truth": count_near(right, TRUTH_COLOUR),
    }
    assert seen[missing] == 0
    assert sum(seen.values()) > 200


def test_every_class_is_outlined():
    one, two = square(30, 40), square(30, 40)
    two[120:160, 100:140] = 2
    image, plain = grey_picture((200, 300, 3)), np.zeros((200, 300), np.uint8)
    drawn = [panels(compare_case(image, prediction=plain, truth=mask))[1] for mask in (one, two)]
    counts = [count_near(picture, TRUTH_COLOUR) for picture in drawn]
    assert counts[1] > 1.5 * counts[0]


def test_a_structure_thinner_than_a_pixel_of_the_panel_is_still_seen():
    shape = (3000, 4000)
    mask = np.zeros(shape, np.uint8)
    mask[1500:1502, 2000:2002] = 1
    data = compare_case(grey_picture((*shape, 3)), prediction=np.zeros_like(mask), truth=mask)
    assert count_near(decode(data)[:380], TRUTH_COLOUR) > 3


@pytest.mark.parametrize("shape", [(3000, 4000), (33, 900), (900, 33), (28, 28)])
def test_pictures_of_any_size_become_small_files_with_a_legend(shape):
    empty = np.zeros(shape, np.uint8)
    picture = decode(compare_case(grey_picture((*shape, 3)), prediction=empty, truth=empty))
    assert max(picture.shape[:2]) <= 2 * LONGEST_SIDE + 100
    assert picture.shape[1] >= 200
    assert count_near(picture[-36:], TRUTH_COLOUR) > 20
    assert count_near(picture[-36:], PREDICTION_COLOUR) > 20


def test_of_a_volume_the_slice_with_most_truth_is_shown_in_its_true_proportions():
    array = np.zeros((40, 30, 5), np.int16)
    array[:, :, 3] = np.arange(40)[:, None] * 50  # brighter to the right
    truth = np.zeros(array.shape, np.uint8)
    truth[30:38, 4:9, 3] = 1  # first axis: right; second axis: low
    truth[1:3, 4:9, 1] = 1
    image = ImageFile(path=Path("a.nii"), array=array, kind="volume", spacing=(1.0, 2.0, 5.0))
    picture = decode(compare_case(image, prediction=np.zeros_like(truth), truth=truth))
    height, width = LONGEST_SIDE, round(LONGEST_SIDE * 40 / 60)
    assert picture.shape[:2] == (height + 36, 2 * width + 8)
    assert picture[10, width - 10].mean() > 200 > 50 > picture[10, 10].mean()
    right = picture[:height, -width:]
    rows, columns = np.nonzero(np.abs(right - TRUTH_COLOUR).max(axis=2) < 40)
    assert rows.mean() > height / 2
    assert columns.mean() > width / 2


def test_best_median_and_worst_cases_are_picked_once_each():
    picks = pick_cases(dice_scores({f"c{number:02}": number / 20 for number in range(21)}), each=2)
    assert [(pick.rank, pick.place, pick.case_id) for pick in picks] == [
        ("best", 1, "c20"), ("best", 2, "c19"), ("median", 1, "c11"), ("median", 2, "c10"),
        ("worst", 1, "c01"), ("worst", 2, "c00"),
    ]  # fmt: skip


def test_few_cases_are_shown_worst_first_and_never_twice():
    for count in range(8):
        values = {f"c{number}": number / 10 for number in range(count)}
        picks = pick_cases(dice_scores(values), each=2)
        assert len({pick.case_id for pick in picks}) == len(picks) == min(6, count)
        if count == 1:
            assert picks[0].rank == "worst"
        if count == 2:
            assert [pick.rank for pick in picks] == ["best", "worst"]


def test_cases_are_ranked_by_their_mean_over_classes():
    scores = [
        Score(case_id=case, class_name=name, metric="dice", value=value)
        for case, values in {"a": (0.9, 0.1), "b": (0.4, 0.8), "c": (None, 0.55)}.items()
        for name, value in zip(("left", "right"), values, strict=True)
    ]
    picks = pick_cases(scores, each=1)
    assert [(pick.rank, pick.case_id) for pick in picks] == [
        ("best", "b"), ("median", "c"), ("worst", "a")
    ]  # fmt: skip
    assert picks[0].value == pytest.approx(0.6)


def test_figures_read_back_from_their_folder(tmp_path):
    empty = np.zeros((40, 50), np.uint8)
    data = compare_case(grey_picture((40, 50, 3)), prediction=empty, truth=empty)
    figures = [
        Figure(name=name, title=f"Best: {name}", caption="Dice 1", alt="a picture", data=data)
        for name in ("best-1", "best-2")
    ]
    paths = write_figures(tmp_path / "figures", figures)
    assert [path.name for path in paths] == ["best-1.jpg", "best-2.jpg"]
    assert read_figures(tmp_path / "figures") == figures
    paths[0].unlink()
    with pytest.raises(ReadError, match="no index of figures"):
        read_figures(tmp_path / "figures")


def test_a_folder_without_index_has_no_figures(tmp_path):
    assert read_figures(tmp_path) == []


def test_a_file_that_is_no_picture_is_no_figure():
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


def test_slices_of_a_volume_run_from_the_first_to_the_last_with_foreground():
    sheet, slices = draw_slices(volume(), prediction=box_in(40, 3, 9), truth=box_in(40, 5, 12))
    assert len(slices) == 9  # 3 to 11
    first, last = decode(slices[0]), decode(slices[-1])
    assert first.shape[:2] == (320, 240)  # 20 x 2 mm high, 30 x 1 mm wide
    assert count_near(first, PREDICTION_COLOUR) > 100 > count_near(first, TRUTH_COLOUR)
    assert count_near(last, TRUTH_COLOUR) > 100 > count_near(last, PREDICTION_COLOUR)
    assert max(decode(sheet).shape[:2]) <= 800
    _, many = draw_slices(volume(60), prediction=box_in(60, 0, 60), truth=box_in(60, 0, 60))
    assert len(many) == 16
    _, none = draw_slices(volume(3), prediction=box_in(3, 0, 0), truth=box_in(3, 0, 0))
    assert len(none) == 3


def test_predictions_stand_side_by_side_on_the_slice_where_they_differ():
    first, second = box_in(10, 2, 8), box_in(10, 2, 8)
    second[8:20, 5:14, 6] = 0
    drawn = decode(
        compare_predictions(
            volume(10), predictions={"one": first, "a name too long " * 9: second}, truth=first
        )
    )
    half = drawn.shape[1] // 2
    assert count_near(drawn[40:-40, :half], PREDICTION_COLOUR) > 100
    assert count_near(drawn[40:-40, half:], PREDICTION_COLOUR) == 0
    assert count_near(drawn[40:-40, half:], TRUTH_COLOUR) > 100


def picture_of(size):
    return b"\x89PNG\r\n\x1a\n" + bytes(size - 8)


def test_the_worst_cases_stay_where_a_page_would_grow_too_large():
    figures = [
        Figure(
            name=str(number),
            title="t",
            caption="",
            alt="",
            data=picture_of(100),
            slices=(picture_of(200),),
        )
        for number in range(4)
    ]
    shown, notes = choose_within(figures, most_bytes=850)
    assert [figure.name for figure in shown] == ["0", "1", "2", "3"]
    assert [len(figure.slices) for figure in shown] == [0, 0, 1, 1]
    assert "single slices of 2" in notes[0]
    shown, notes = choose_within(figures, most_bytes=450)
    assert [figure.name for figure in shown] == ["2", "3"]
    assert notes[0].startswith("To keep this page below 10 MB, 2 pictures")
    assert choose_within(figures, most_bytes=5000) == (figures, [])


def test_slices_are_read_back_as_written(tmp_path):
    figure = Figure(
        name="worst-1", title="t", caption="c", alt="a", data=picture_of(20),
        slices=(picture_of(30), picture_of(40)),
    )  # fmt: skip
    assert len(write_figures(tmp_path, [figure])) == 3
    assert read_figures(tmp_path) == [figure]


def test_sliders_of_one_page_do_not_move_each_other():
    one = Figure(
        name="best-1",
        title="t",
        caption="",
        alt="",
        data=picture_of(9),
        slices=(picture_of(9),) * 2,
    )
    page = draw_figures([one, one])
    assert page.count('name="slices-1"') == page.count('name="slices-2"') == 2

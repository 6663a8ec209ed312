import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segnetr.metrics import PIXEL_COUNTS, score_masks
from segnetr.metrics.surface import _distance_map, _search_tree, find_border, measure_surfaces

LESION = ("background", "lesion")
ORGANS = ("background", "left", "right")


def score(prediction, ground_truth, *, classes=LESION, **options):
    scores = score_masks(
        np.asarray(prediction, np.uint8),
        np.asarray(ground_truth, np.uint8),
        classes=classes,
        case_id="a",
        **options,
    )
    return {(one.class_name, one.metric): one.value for one in scores}


def lesion(prediction, ground_truth, **options):
    return {
        metric: value for (_, metric), value in score(prediction, ground_truth, **options).items()
    }


def square(top, left, side, *, shape=(20, 30)):
    mask = np.zeros(shape, np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def brute_force(prediction, ground_truth, spacing, tolerance):
    """Compute HD95, ASSD and NSD by definition, over all pairs of border pixels."""

    def border(mask):
        points = {tuple(point) for point in np.argwhere(mask)}
        steps = [
            tuple(sign * (axis == k) for k in range(mask.ndim))
            for axis, sign in product(range(mask.ndim), (-1, 1))
        ]
        return [
            point
            for point in sorted(points)
            if any(tuple(np.add(point, step)) not in points for step in steps)
        ]

    def directed(start, goal):
        return [
            min(math.dist(np.multiply(a, spacing), np.multiply(b, spacing)) for b in goal)
            for a in start
        ]

    ours, theirs = border(prediction), border(ground_truth)
    there, back = directed(ours, theirs), directed(theirs, ours)
    both = there + back
    return (
        max(np.percentile(there, 95), np.percentile(back, 95)),
        sum(both) / len(both),
        sum(distance <= tolerance + 1e-7 for distance in both) / len(both),
    )


def test_scores_of_two_shifted_squares_match_a_worked_example():
    # 4 x 4 squares, one shifted by one column: 12 shared pixels, 16 + 16 in total.
    values = lesion(square(3, 3, 4), square(3, 4, 4))
    assert values["dice"] == 24 / 32
    assert values["iou"] == 12 / 20
    assert values["isic_jaccard"] == 0.0  # 0.6 is below 0.65
    assert values["hd95_px"] == 1.0
    # In each border of 12 pixels, the far column (4) and the two inner ends of the near column are
    # not on the other border: 6 pixels at distance 1.
    assert values["assd_px"] == pytest.approx(0.5)
    assert values["nsd_2px"] == 1.0
    assert [values[name] for name in PIXEL_COUNTS] == [16, 16, 12]


def test_equal_masks_have_perfect_scores():
    values = lesion(square(3, 3, 5), square(3, 3, 5))
    assert (values["dice"], values["iou"], values["isic_jaccard"]) == (1, 1, 1)
    assert (values["hd95_px"], values["assd_px"], values["nsd_2px"]) == (0, 0, 1)


def test_two_empty_masks_have_dice_one_and_no_distance():
    empty = np.zeros((20, 30))
    values = lesion(empty, empty)
    assert (values["dice"], values["iou"], values["isic_jaccard"]) == (1, 1, 1)
    assert (values["hd95_px"], values["assd_px"], values["nsd_2px"]) == (None, None, None)


@pytest.mark.parametrize("missed", [True, False], ids=["missed", "false alarm"])
def test_missed_structure_and_false_positive_score_the_image_diagonal(missed):
    empty, full = np.zeros((30, 40)), square(3, 3, 5, shape=(30, 40))
    values = lesion(empty, full) if missed else lesion(full, empty)
    assert (values["dice"], values["iou"], values["isic_jaccard"]) == (0, 0, 0)
    assert (values["hd95_px"], values["assd_px"], values["nsd_2px"]) == (50, 50, 0)


def test_penalty_is_larger_than_any_distance_in_the_image():
    one, other = np.zeros((9, 12)), np.zeros((9, 12))
    one[0, 0] = other[-1, -1] = 1
    assert lesion(one, other)["hd95_px"] < lesion(np.zeros((9, 12)), other)["hd95_px"] == 15


def test_distances_are_in_millimeters_if_the_file_has_a_spacing():
    values = lesion(square(3, 3, 4), square(3, 5, 4), spacing=(3.0, 0.5), nsd_tolerance=0.5)
    assert values["hd95_mm"] == 1.0  # two columns of half a millimeter
    assert "nsd_0.5mm" in values
    assert not [name for name in values if name.endswith("px")]


def test_distance_equal_to_the_tolerance_is_within_it():
    for side in (0.1, 0.3, 0.7, 1.1):
        shifted = lesion(
            square(3, 3, 4), square(3, 6, 4), spacing=(50.0, side), nsd_tolerance=3 * side
        )
        assert shifted[f"nsd_{3 * side:g}mm"] == 1.0


def test_isic_score_counts_iou_at_the_threshold_and_not_below():
    ground_truth = np.zeros((10, 10))
    ground_truth[:, :] = 1
    at, below = ground_truth.copy(), ground_truth.copy()
    at.flat[65:] = 0
    below.flat[64:] = 0
    assert lesion(at, ground_truth)["isic_jaccard"] == 0.65
    assert lesion(below, ground_truth)["isic_jaccard"] == 0.0
    assert lesion(below, ground_truth, isic_threshold=0.5)["isic_jaccard"] == 0.64


def test_isic_score_is_defined_only_for_images_with_one_foreground_class():
    image, volume = np.zeros((8, 8)), np.zeros((8, 8, 4))
    assert "isic_jaccard" in lesion(image, image)
    assert "isic_jaccard" not in lesion(volume, volume)
    assert ("left", "isic_jaccard") not in score(image, image, classes=ORGANS)


def test_every_foreground_class_is_scored_separately():
    ground_truth, prediction = square(2, 2, 4), square(2, 2, 4)
    ground_truth[10:14, 10:14] = 2
    values = score(prediction, ground_truth, classes=ORGANS)
    assert values["left", "dice"] == 1.0
    assert values["right", "dice"] == 0.0
    assert values["right", "hd95_px"] == math.hypot(20, 30)
    assert {name for name, _ in values} == {"left", "right"}


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_scores_equal_brute_force_computation(data):
    shape = data.draw(
        st.sampled_from([(5, 7), (6, 6), (1, 8), (4, 5, 3), (3, 1, 6)]), label="shape"
    )
    sides = st.sampled_from([0.5, 0.7, 1.0, 2.5, 8.0])
    spacing = data.draw(st.tuples(*[sides] * len(shape)), label="spacing")
    masks = arrays.arrays(np.uint8, shape, elements=st.integers(0, 1))
    prediction, ground_truth = (
        data.draw(masks, label="prediction"),
        data.draw(masks, label="ground_truth"),
    )
    values = lesion(prediction, ground_truth, spacing=spacing)
    ours, theirs = set(np.flatnonzero(prediction)), set(np.flatnonzero(ground_truth))
    if ours or theirs:
        assert values["dice"] == 2 * len(ours & theirs) / (len(ours) + len(theirs))
        assert values["iou"] == len(ours & theirs) / len(ours | theirs)
    if ours and theirs:
        expected = brute_force(prediction, ground_truth, spacing, 2.0)
        found = (values["hd95_mm"], values["assd_mm"], values["nsd_2mm"])
        assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.bool_, (6, 5, 4)),
    arrays.arrays(np.bool_, (6, 5, 4)),
    st.tuples(*[st.sampled_from([0.5, 1.0, 3.3])] * 3),
)
def test_search_tree_and_distance_map_return_the_same_distances(start, goal, spacing):
    goal[0, 0, 0] = True
    tree = _search_tree(start, goal, spacing=spacing)
    np.testing.assert_allclose(tree, _distance_map(start, goal, spacing=spacing), atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(np.uint8, (6, 7), elements=st.integers(0, 2)),
    arrays.arrays(np.uint8, (6, 7), elements=st.integers(0, 2)),
)
def test_scores_are_invariant_to_swapping_masks_and_rotating_the_grid(one, other):
    values = score(one, other, classes=ORGANS)
    swapped = score(other, one, classes=ORGANS)
    turned = score(np.rot90(one), np.rot90(other), classes=ORGANS)
    for key, value in values.items():
        if key[1] not in PIXEL_COUNTS:
            assert swapped[key] == pytest.approx(value, abs=1e-12)
            assert turned[key] == pytest.approx(value, abs=1e-12)


@pytest.mark.slow
def test_dense_and_sparse_borders_have_the_same_score_by_different_methods():
    generator = np.random.default_rng(0)
    ground_truth = square(10, 10, 40, shape=(60, 60))
    speckled = ground_truth ^ (generator.random(ground_truth.shape) < 0.2)
    assert np.count_nonzero(find_border(speckled > 0)) * 20 > ground_truth.size
    expected = brute_force(speckled, ground_truth, (1, 1), 2.0)
    values = lesion(speckled, ground_truth)
    assert (values["hd95_px"], values["assd_px"], values["nsd_2px"]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("prediction", "ground_truth", "options", "message"),
    [
        (
            np.zeros((4, 5)),
            np.zeros((5, 4)),
            {},
            "a: prediction 4 x 5 and ground truth 5 x 4 differ",
        ),
        (np.zeros(4), np.zeros(4), {}, "two or three axes"),
        (np.zeros((0, 4)), np.zeros((0, 4)), {}, "two or three axes"),
        (
            np.zeros((4, 5)),
            np.full((4, 5), 2),
            {},
            "the ground truth holds 2, but classes go from 0 to 1",
        ),
        (np.full((4, 5), 255), np.zeros((4, 5)), {}, "the prediction holds 255"),
        (np.zeros((4, 5)), np.zeros((4, 5)), {"spacing": (1.0, 1.0, 1.0)}, "does not fit"),
        (np.zeros((4, 5)), np.zeros((4, 5)), {"spacing": (1.0, 0.0)}, "does not fit"),
        (np.zeros((4, 5)), np.zeros((4, 5)), {"spacing": (1.0, math.nan)}, "does not fit"),
        (np.zeros((4, 5)), np.zeros((4, 5)), {"classes": ("background", "mean")}, "named 'mean'"),
    ],
)
def test_invalid_input_gives_an_error_with_the_case_name(
    prediction, ground_truth, options, message
):
    with pytest.raises(ValueError, match=message):
        score(prediction, ground_truth, **options)


def test_distance_to_an_empty_mask_is_rejected():
    with pytest.raises(ValueError, match="not empty"):
        measure_surfaces(np.zeros((3, 3), bool), np.ones((3, 3), bool), spacing=(1.0, 1.0))

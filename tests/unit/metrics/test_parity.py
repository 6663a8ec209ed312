"""Test scores against MONAI, SimpleITK and the package of the ISIC challenge.

Scores agree to 1e-6 where the definitions agree. Worked examples show how MONAI's defaults differ.
"""

import math

import numpy as np
import pytest
import SimpleITK
import torch
from monai.metrics import (
    DiceMetric,
    HausdorffDistanceMetric,
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)
from PIL import Image

from segnetr.metrics import score_masks, select_summary, summarize
from segnetr.metrics.surface import measure_surfaces

# MONAI 1.6 uses one of its own deprecated arguments.
pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")

LESION = ("background", "lesion")
SPACINGS = {2: [None, (1.0, 1.0), (0.7, 2.5)], 3: [None, (0.8, 0.8, 5.0)]}


def blob(shape, generator):
    """Return a random distorted ellipse."""
    axes = np.meshgrid(*[np.arange(side) for side in shape], indexing="ij")
    distance = sum(
        ((axis - generator.uniform(0.35, 0.65) * side) / (generator.uniform(0.15, 0.35) * side))
        ** 2
        for axis, side in zip(axes, shape, strict=True)
    )
    return (distance + 0.2 * generator.standard_normal(shape) < 1).astype(np.uint8)


def as_monai(mask):
    return torch.from_numpy(mask)[None, None].float()


def pairs(dims):
    generator = np.random.default_rng(7)
    shapes = {2: [(32, 45), (60, 33), (17, 17)], 3: [(20, 24, 9), (16, 31, 12)]}[dims]
    return [(blob(shape, generator), blob(shape, generator)) for shape in shapes for _ in range(3)]


@pytest.mark.parametrize("dims", [2, 3])
def test_dice_and_iou_equal_those_of_monai(dims):
    for prediction, ground_truth in pairs(dims):
        values = score(prediction, ground_truth)
        ours, theirs = as_monai(prediction), as_monai(ground_truth)
        assert values["dice"] == pytest.approx(compute_dice(ours, theirs).item(), abs=1e-6)
        assert values["iou"] == pytest.approx(compute_iou(ours, theirs).item(), abs=1e-6)


@pytest.mark.parametrize(("dims", "spacing"), [(d, s) for d in SPACINGS for s in SPACINGS[d]])
def test_surface_distances_equal_those_of_monai(dims, spacing):
    unit = "px" if spacing is None else "mm"
    size = None if spacing is None else list(spacing)
    for prediction, ground_truth in pairs(dims):
        values = score(prediction, ground_truth, spacing=spacing, nsd_tolerance=1.5)
        ours, theirs = as_monai(prediction), as_monai(ground_truth)
        hd95 = compute_hausdorff_distance(ours, theirs, percentile=95, spacing=size)
        assd = compute_average_surface_distance(ours, theirs, symmetric=True, spacing=size)
        nsd = compute_surface_dice(ours, theirs, [1.5], spacing=size, include_background=True)
        # MONAI computes the rank of the percentile in float32, which makes it less precise.
        assert values[f"hd95_{unit}"] == pytest.approx(hd95.item(), rel=5e-6)
        assert values[f"assd_{unit}"] == pytest.approx(assd.item(), rel=1e-6)
        assert values[f"nsd_1.5{unit}"] == pytest.approx(nsd.item(), abs=1e-6)


def surfaces_by_simpleitk(prediction, ground_truth, spacing):
    """Return distances of border pixels from ITK's contour and distance filters."""

    def as_image(mask):
        # Pad with background because ITK does not count the edge of the image as a border.
        image = SimpleITK.GetImageFromArray(np.pad(mask, 1))
        image.SetSpacing([float(side) for side in reversed(spacing)])
        return image

    def border(image):
        return SimpleITK.LabelContour(image, fullyConnected=False)

    def directed(start, goal):
        distances = SimpleITK.SignedMaurerDistanceMap(
            goal, insideIsPositive=False, squaredDistance=False, useImageSpacing=True
        )
        found = np.abs(SimpleITK.GetArrayViewFromImage(distances).astype(np.float64))
        return found[SimpleITK.GetArrayViewFromImage(start) == 1]

    ours, theirs = border(as_image(prediction)), border(as_image(ground_truth))
    return directed(ours, theirs), directed(theirs, ours)


@pytest.mark.parametrize(
    ("dims", "spacing"),
    [(2, (1.0, 1.0)), (2, (0.7, 2.5)), (3, (0.8, 0.8, 5.0)), (3, (3, 0.5, 1.1))],
)
def test_surface_distances_equal_those_of_simpleitk_to_a_millionth(dims, spacing):
    for prediction, ground_truth in pairs(dims):
        there, back = surfaces_by_simpleitk(prediction, ground_truth, spacing)
        both = np.concatenate([there, back])
        values = score(prediction, ground_truth, spacing=spacing, nsd_tolerance=1.53)
        hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
        # ITK returns float32.
        assert values["hd95_mm"] == pytest.approx(hd95, rel=1e-6)
        assert values["assd_mm"] == pytest.approx(both.mean(), rel=1e-6)
        assert values["nsd_1.53mm"] == pytest.approx((both <= 1.53).mean(), abs=1e-6)


@pytest.mark.parametrize(("dims", "spacing"), [(2, (0.7, 2.5)), (3, (0.8, 0.8, 5.0))])
def test_hausdorff_distance_equals_that_of_monai_to_a_millionth(dims, spacing):
    # The maximum does not need the rank, which MONAI computes in float32.
    for prediction, ground_truth in pairs(dims):
        ours = measure_surfaces(prediction > 0, ground_truth > 0, spacing=spacing)
        theirs = compute_hausdorff_distance(
            as_monai(prediction), as_monai(ground_truth), spacing=list(spacing)
        )
        largest = max(ours.to_ground_truth.max(), ours.to_prediction.max())
        assert largest == pytest.approx(theirs.item(), rel=1e-6)


# Our scores and MONAI's for the same masks. MONAI excludes NaN and infinity from its means.
EMPTIES = {
    "both empty": (
        (1.0, 1.0, None, None, None),
        (math.nan, math.nan, math.nan, math.nan, math.nan),
    ),
    "missed": ((0.0, 0.0, 50.0, 50.0, 0.0), (0.0, 0.0, math.nan, math.inf, 0.0)),
    "false alarm": ((0.0, 0.0, 50.0, 50.0, 0.0), (math.nan, math.nan, math.nan, math.inf, 0.0)),
}


@pytest.mark.filterwarnings("ignore:the (prediction|ground truth) of class .* is all 0")
@pytest.mark.parametrize("name", EMPTIES)
def test_empty_masks_are_scored_while_monai_excludes_them(name):
    full, empty = blob((30, 40), np.random.default_rng(0)), np.zeros((30, 40), np.uint8)
    prediction = full if name == "false alarm" else empty
    ground_truth = full if name == "missed" else empty
    ours, theirs = EMPTIES[name]
    values = score(prediction, ground_truth)
    found = tuple(values[key] for key in ("dice", "iou", "hd95_px", "assd_px", "nsd_2px"))
    assert found == ours
    pair = as_monai(prediction), as_monai(ground_truth)
    monai = [
        compute_dice(*pair),
        compute_iou(*pair),
        compute_hausdorff_distance(*pair, percentile=95),
        compute_average_surface_distance(*pair, symmetric=True),
        compute_surface_dice(*pair, [2.0], include_background=True),
    ]
    assert [value.item() for value in monai] == pytest.approx(theirs, nan_ok=True)


def test_distances_follow_the_spacing_of_each_axis():
    # A plate moved by two voxels: 10 mm along the axis of thick slices, 1 mm along a thin one.
    ground_truth = np.zeros((9, 9, 9), np.uint8)
    ground_truth[3:6, 3:6, 4] = 1
    for axis, expected in ((0, 1.0), (2, 10.0)):
        moved = score(np.roll(ground_truth, 2, axis=axis), ground_truth, spacing=(0.5, 0.5, 5.0))
        # Along the plate, two of its three rows are 0.5 and 1 mm apart. Across it: 10 mm for all.
        assert moved["hd95_mm"] == pytest.approx(expected)
    thick = score(
        np.roll(ground_truth, 2, axis=2), ground_truth, spacing=(0.5, 0.5, 5.0), nsd_tolerance=9.9
    )
    assert thick["nsd_9.9mm"] == 0.0


def test_scores_do_not_depend_on_the_position_in_a_larger_volume():
    prediction, ground_truth = pairs(3)[0]
    alone = score(prediction, ground_truth, spacing=(1.0, 1.0, 2.0))
    around = [(7, 3), (0, 9), (5, 5)]
    padded = score(
        np.pad(prediction, around), np.pad(ground_truth, around), spacing=(1.0, 1.0, 2.0)
    )
    assert padded == pytest.approx(alone, rel=1e-12)


@pytest.mark.filterwarnings("ignore:the (prediction|ground truth) of class .* is all 0")
def test_missed_structures_raise_the_mean_distance_but_not_in_monai():
    generator = np.random.default_rng(2)
    ground_truths = [blob((30, 40), generator) for _ in range(6)]
    good = [np.roll(ground_truth, 2, axis=0) for ground_truth in ground_truths]
    means, theirs = [], []
    for missed in range(4):
        found = [
            np.zeros_like(t) if n < missed else g
            for n, (g, t) in enumerate(zip(good, ground_truths, strict=True))
        ]
        cases = [score(p, t)["hd95_px"] for p, t in zip(found, ground_truths, strict=True)]
        means.append(np.mean(cases))
        metric = HausdorffDistanceMetric(percentile=95)
        for p, t in zip(found, ground_truths, strict=True):
            metric(as_monai(p), as_monai(t))
        theirs.append(metric.aggregate().item())
    assert means == sorted(means)
    assert means[3] > means[0] + 20
    assert not any(math.isfinite(value) and value > means[0] + 20 for value in theirs)


@pytest.mark.filterwarnings("ignore:the ground truth of class .* is all 0")
def test_false_positive_lowers_the_mean_dice_but_not_in_monai():
    ground_truth = np.zeros((20, 20), np.uint8)
    alarm = blob((20, 20), np.random.default_rng(4))
    metric = DiceMetric()  # by default, it excludes classes that are absent from the ground truth
    metric(as_monai(alarm), as_monai(ground_truth))
    good = blob((20, 20), np.random.default_rng(5))
    metric(as_monai(good), as_monai(good))
    assert metric.aggregate().item() == 1.0
    ours = [score(alarm, ground_truth)["dice"], score(good, good)["dice"]]
    assert np.mean(ours) == 0.5


def test_distances_have_a_unit_while_monai_defaults_to_voxels():
    prediction, ground_truth = pairs(3)[0]
    voxels = compute_hausdorff_distance(as_monai(prediction), as_monai(ground_truth), percentile=95)
    assert "hd95_mm" not in score(prediction, ground_truth)
    assert score(prediction, ground_truth)["hd95_px"] == pytest.approx(voxels.item(), rel=5e-6)
    assert "hd95_px" not in score(prediction, ground_truth, spacing=(1.0, 1.0, 5.0))


def isic_cases():
    """Return pairs of any quality, with a missed lesion, a false positive and two empty masks."""
    generator = np.random.default_rng(1)
    ground_truths = [blob((40, 50), generator) for _ in range(12)]
    predictions = [
        np.roll(ground_truth, shift, axis=1)
        for shift, ground_truth in zip(range(12), ground_truths, strict=True)
    ]
    empty = np.zeros((40, 50), np.uint8)
    return [
        *zip(predictions, ground_truths, strict=True),
        (empty, ground_truths[0]),
        (ground_truths[1], empty),
        (empty, empty),
    ]


def our_isic_summaries():
    return summarize(
        [
            score
            for number, (prediction, ground_truth) in enumerate(isic_cases())
            for score in score_masks(
                prediction, ground_truth, classes=LESION, case_id=f"ISIC_{number}"
            )
        ],
        bootstrap=0,
    )


def test_isic_score_equals_the_published_definition():
    # Codella et al., arXiv:1902.03368, section 2.1: the Jaccard index per image, 0 if it is
    # below 0.65. The score is the mean over the images.
    expected = []
    for prediction, ground_truth in isic_cases():
        union = np.logical_or(prediction, ground_truth).sum()
        jaccard = np.logical_and(prediction, ground_truth).sum() / union if union else 1.0
        expected.append(jaccard if jaccard >= 0.65 else 0.0)
    assert 0 < sum(value == 0 for value in expected) < len(expected)
    found = select_summary(our_isic_summaries(), "isic_jaccard").mean
    assert found == pytest.approx(np.mean(expected), abs=1e-12)


# The package is from 2021 and calls deprecated functions of pandas.
@pytest.mark.filterwarnings("ignore:The inplace keyword in Series.rename:DeprecationWarning")
def test_isic_score_equals_that_of_the_challenge_package(tmp_path):
    package = pytest.importorskip(
        "isic_challenge_scoring.segmentation",
        reason="isic-challenge-scoring is not installed; the published definition is tested above",
    )
    ground_truths, predictions = tmp_path / "ground_truth", tmp_path / "prediction"
    ground_truths.mkdir()
    predictions.mkdir()
    for number, (prediction, ground_truth) in enumerate(isic_cases()):
        name = f"ISIC_{number:07d}_segmentation.png"
        Image.fromarray(ground_truth * 255).save(ground_truths / name)
        Image.fromarray(prediction * 255).save(predictions / name)
    theirs = package.SegmentationScore.from_dir(ground_truths, predictions).macro_average
    ours = our_isic_summaries()
    for our_name, their_name in [
        ("isic_jaccard", "threshold_jaccard"),
        ("iou", "jaccard"),
        ("dice", "dice"),
    ]:
        found = select_summary(ours, our_name).mean
        assert found == pytest.approx(theirs[their_name], abs=1e-12)


def score(prediction, ground_truth, **options):
    scores = score_masks(prediction, ground_truth, classes=LESION, case_id="a", **options)
    return {one.metric: one.value for one in scores}

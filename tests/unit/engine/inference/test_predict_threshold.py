"""`predict.threshold`, and what goes by while labels are chosen: one network, a mean, a vote."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.readers.image_file import ImageFile
from segnetr.engine.inference.postprocessing import choose_labels
from segnetr.engine.inference.postprocessing_search import THRESHOLDS, ThresholdLabels
from segnetr.engine.inference.predictor import Predictor
from segnetr.workflows.evaluation.evaluation_record import CalibrationCollector

VALUES = np.random.default_rng(5)
IMAGE = ImageFile(
    path=Path("a.png"), array=VALUES.integers(0, 256, (37, 53, 1), dtype=np.uint8), kind="image"
)
VOLUME = ImageFile(
    path=Path("a.nii"),
    array=VALUES.integers(0, 900, (24, 19, 5)).astype(np.int16),
    kind="volume",
    affine=np.eye(4),
    spacing=(1.0, 1.0, 1.0),
)


class Noise(nn.Module):
    """Fixed random weights; answers neither near 0 nor near 1."""

    def __init__(self, seed: int, classes: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Conv2d(1, classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return 1.5 * self.layer(image)


def predictor(seed=0, *, classes=2, image=IMAGE, axis=2, **settings):
    kind = "fixed" if image.kind == "image" else "percentiles"
    mean = {"mean": (0.5,), "std": (0.25,)} if kind == "fixed" else {}
    return Predictor(
        Noise(seed, classes),
        config=PredictConfig(**settings),
        intensity=IntensityConfig(kind=kind, **mean),
        image_size=(16, 16),
        num_classes=classes,
        channels=1,
        slices=SliceConfig(axis=axis),
    )


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.85])
@pytest.mark.parametrize("mode", ["resize", "window"])
@pytest.mark.parametrize("image", [IMAGE, VOLUME], ids=["image", "volume"])
@pytest.mark.parametrize("members", [1, 3])
def test_threshold_of_a_network_and_of_an_ensemble_equals_choose_labels(
    members, image, mode, threshold
):
    parts = [
        predictor(seed, classes=3, image=image, mode=mode, threshold=threshold)
        for seed in range(members)
    ]
    joined = parts[0] if members == 1 else Predictor.ensemble(parts)
    found = joined.predict(image, keep_probabilities=True)
    np.testing.assert_array_equal(found.labels, choose_labels(found.probabilities, threshold))
    plain = choose_labels(found.probabilities, 0.5)
    assert (threshold == 0.5) == np.array_equal(found.labels, plain)
    without = joined.predict(image)
    np.testing.assert_array_equal(without.labels, found.labels)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("members", [2, 3])
def test_each_network_votes_with_the_threshold_which_also_decides_equal_votes(members, threshold):
    parts = [predictor(seed, classes=3, mode="window", threshold=threshold) for seed in range(3)]
    parts = parts[:members]
    answers = [p.predict(IMAGE, keep_probabilities=True).probabilities for p in parts]
    voices = np.stack([choose_labels(answer, threshold) for answer in answers])
    counts = np.stack([(voices == index).sum(axis=0) for index in range(3)])
    # Of the classes with most voices the one that a threshold of their mean would choose.
    mean = np.mean(answers, axis=0) * np.array([threshold / (1 - threshold), 1, 1])[:, None, None]
    leading = counts == counts.max(axis=0)
    expected = np.where(leading, mean, -1).argmax(axis=0)
    ties = leading.sum(axis=0) > 1
    assert ties.any()
    found = Predictor.ensemble(parts, combination="vote").predict(IMAGE, keep_probabilities=True)
    np.testing.assert_array_equal(found.labels, expected)
    np.testing.assert_allclose(found.probabilities, counts / members, atol=1e-7)


def test_threshold_of_an_ensemble_is_that_of_its_first_model():
    timid, bold = predictor(0, threshold=0.9), predictor(1, threshold=0.1)
    found = Predictor.ensemble([timid, bold]).predict(IMAGE, keep_probabilities=True)
    np.testing.assert_array_equal(found.labels, choose_labels(found.probabilities, 0.9))


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("image", [IMAGE, VOLUME], ids=["image", "volume"])
@pytest.mark.parametrize("members", [1, 2])
def test_callback_receives_the_probabilities_that_are_kept(members, image, axis):
    parts = [
        predictor(seed, classes=3, image=image, mode="window", axis=axis) for seed in range(members)
    ]
    joined = parts[0] if members == 1 else Predictor.ensemble(parts)
    seen = np.full((3, *image.grid), np.nan, np.float32)
    starts = []

    def watch(place, index, probability):
        place.cut(seen[index])[...] = probability
        if index == 0:
            starts.append((place.start, probability.size))

    kept = joined.predict(image, keep_probabilities=True).probabilities
    watched = joined.predict(image, callback=watch)
    assert watched.probabilities is None
    np.testing.assert_array_equal(seen, kept)
    assert starts[0][0] == 0
    assert sum(size for _, size in starts) == np.prod(image.grid)
    ends = [start + size for start, size in starts]
    assert ends[:-1] == [start for start, _ in starts[1:]]


def test_one_prediction_gives_the_labels_of_all_thresholds():
    made = predictor(classes=3, image=VOLUME, mode="window", axis=1)
    found = ThresholdLabels(VOLUME.grid, classes=3)
    made.predict(VOLUME, callback=found)
    kept = made.predict(VOLUME, keep_probabilities=True).probabilities
    for threshold in THRESHOLDS:
        np.testing.assert_array_equal(found.labels[threshold], choose_labels(kept, threshold))


def test_calibration_of_a_volume_is_counted_during_prediction():
    made = predictor(classes=3, image=VOLUME, mode="window", axis=0)
    ground_truth = VALUES.integers(0, 3, VOLUME.grid).astype(np.uint8)
    watch = CalibrationCollector(ground_truth)
    made.predict(VOLUME, callback=watch)
    kept = made.predict(VOLUME, keep_probabilities=True).probabilities
    expected = np.zeros((3, 10))
    for index in (1, 2):
        place = np.minimum((kept[index].ravel() * 10).astype(int), 9)
        is_true = ground_truth.ravel() == index
        expected[0] += np.bincount(place, minlength=10)
        expected[1] += np.bincount(place, weights=kept[index].ravel(), minlength=10)
        expected[2] += np.bincount(place, weights=is_true, minlength=10)
    np.testing.assert_allclose(watch.pixels.table, expected / ground_truth.size, rtol=1e-6)

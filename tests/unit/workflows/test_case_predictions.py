"""Evaluating a volume takes no more memory than its labels and those of its ground truth."""

import tracemalloc
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig
from segnetr.data.case import Case
from segnetr.engine.inference.predictor import Predictor
from segnetr.outputs.reports.case_comparison import compare_predictions
from segnetr.outputs.reports.display_image import show_image
from segnetr.outputs.reports.volume_figure import draw_slices
from segnetr.workflows.evaluation.case_predictions import CasePredictor
from segnetr.workflows.evaluation.evaluation_record import EvaluationRecord

GRID = (64, 60, 40)
CLASSES = 6


def write_case(folder, *, grid=GRID, ground_truth_grid=None):
    folder.mkdir(exist_ok=True)
    values = np.random.default_rng(0).integers(0, 900, grid).astype(np.int16)
    labels = np.zeros(ground_truth_grid or grid, np.uint8)
    for index in range(1, CLASSES):
        labels[8 * index : 8 * index + 12, 9 * index : 9 * index + 20, 4 * index :] = index
    for name, array in (("image.nii", values), ("mask.nii", labels)):
        nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), folder / name)
    return Case(case_id="a", image=folder / "image.nii", mask=folder / "mask.nii", split="test")


def make_model():
    torch.manual_seed(1)
    predictor = Predictor(
        nn.Conv2d(1, CLASSES, 1),
        config=PredictConfig(mode="window", overlap=0.25),
        intensity=IntensityConfig(kind="percentiles"),
        image_size=(64, 60),
        num_classes=CLASSES,
        channels=1,
    )
    spec = SimpleNamespace(classes=tuple("abcdef"), mask_values=None)
    card = SimpleNamespace(volume_channels=1, file_channels=1)
    return CasePredictor(predictor=predictor, card=card, spec=spec, max_pixels=10**6)


def ignore(done, count):
    del done, count


def score_case(case):
    """The pair of a case, its log, and the most memory that arrays took meanwhile."""
    log, unread = EvaluationRecord(), []
    tracemalloc.start()
    try:
        [pair] = make_model().pairs([case], log=log, unread=unread, advance=ignore)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert unread == []
    return pair, log, peak


@pytest.mark.slow
def test_memory_grows_by_labels_and_ground_truth_and_not_by_values_and_probabilities(tmp_path):
    peaks = [
        score_case(write_case(tmp_path / str(depth), grid=(64, 60, depth)))[2]
        for depth in (100, 300)
    ]
    # Labels, ground truth, and the file of the ground truth while it is indexed; the
    # probabilities of six classes
    # would take 24 bytes a voxel, the values 2.
    assert peaks[1] - peaks[0] < 5 * (64 * 60 * 200)


def test_volume_is_scored_and_calibrated_as_if_its_probabilities_were_kept(tmp_path):
    pair, log, _ = score_case(write_case(tmp_path))
    model = make_model()
    image, ground_truth = model.open(write_case(tmp_path))
    np.testing.assert_array_equal(pair.ground_truth.array, ground_truth.array)
    whole = model.predictor.predict(image, keep_probabilities=True)
    np.testing.assert_array_equal(pair.prediction, whole.labels)
    said = whole.probabilities[1:]
    expected, _ = np.histogram(said, bins=np.linspace(0, 1, 11))
    found = log.reliability()
    counts = np.array([one.count for one in found.bins])
    np.testing.assert_allclose(counts / 5e6, expected / said.size, atol=1e-4)
    assert [record.grid for record in log.records] == [GRID]


def test_ground_truth_on_another_grid_is_passed_on_and_not_counted(tmp_path):
    case, model, log = (
        write_case(tmp_path, ground_truth_grid=(64, 60, 39)),
        make_model(),
        EvaluationRecord(),
    )
    [pair] = model.pairs([case], log=log, unread=[], advance=ignore)
    assert pair.ground_truth.array.shape != pair.prediction.shape
    assert log.reliability() is None


def test_volume_on_the_disk_is_drawn_like_one_in_memory(tmp_path):
    image, ground_truth = make_model().open(write_case(tmp_path))
    whole = image.load()
    labels = np.roll(ground_truth.array, 3, axis=0)
    assert draw_slices(image, prediction=labels, ground_truth=ground_truth.array) == draw_slices(
        whole, prediction=labels, ground_truth=ground_truth.array
    )
    masks = {"one": labels, "other": ground_truth.array}
    synthetic = [
        compare_predictions(file, predictions=masks, ground_truth=ground_truth.array)
        for file in (image, whole)
    ]
    assert synthetic[0] == synthetic[1]
    shown = show_image(image, [2, 30])
    assert sorted(shown.planes) == [2, 30]
    np.testing.assert_array_equal(shown.planes[30], whole.array[:, :, 30])
    assert shown.sample.size == np.prod(GRID)

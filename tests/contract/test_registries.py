"""Each entry of the tables of metrics, losses and architectures fulfills the table's contract."""

import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from segnetr.config.schema.segmentation import ModelConfig, TrainConfig
from segnetr.errors import UsageError
from segnetr.losses import LOSSES, build_loss
from segnetr.metrics import score_masks
from segnetr.metrics.registry import METRICS, get_metric
from segnetr.metrics.score import PIXEL_COUNTS
from segnetr.models.build import ARCHITECTURES, get_builder

CASE_METRICS = [name for name, spec in METRICS.items() if spec.score is not None]


def score(prediction, ground_truth, **options):
    scores = score_masks(
        np.array(prediction), np.array(ground_truth), classes=("b", "a"), case_id="1", **options
    )
    return {row.metric: row.value for row in scores if row.metric not in PIXEL_COUNTS}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_describes_itself_and_cannot_be_changed(name):
    spec = METRICS[name]
    assert spec.name == name
    assert spec.title
    assert spec.unit in ("", "length")
    assert spec.penalty in ("none", "zero", "diagonal")
    assert (spec.penalty == "none") == (spec.score is None)
    assert get_metric(name) is spec
    with pytest.raises(FrozenInstanceError):
        spec.title = "other"


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("unit", ["px", "mm"])
@pytest.mark.parametrize("tolerance", [2.0, 0.5, 1e-05, 1e20])
def test_the_stored_name_of_a_metric_leads_back_to_it(name, unit, tolerance):
    spec = METRICS[name]
    assert get_metric(spec.stored_name(unit, tolerance=tolerance)) is spec


@pytest.mark.parametrize("name", ["hd95_2mm", "nsd_mm", "dice_mm", "hd95_cm", "hd", "", "iou_2px"])
def test_an_unknown_metric_is_an_error_of_one_line(name):
    with pytest.raises(UsageError, match="unknown metric") as caught:
        get_metric(name)
    assert "\n" not in str(caught.value)


def test_a_misspelled_metric_is_answered_with_the_nearest_name():
    with pytest.raises(UsageError, match="did you mean 'assd'"):
        get_metric("asd")


@pytest.mark.parametrize("name", CASE_METRICS)
def test_scoring_uses_every_case_metric_with_its_direction_penalty_and_empty_value(name):
    spec = METRICS[name]
    stored = spec.stored_name("px", tolerance=2.0)
    target = np.zeros((30, 40), np.uint8)
    target[5:15, 5:15] = 1
    empty, moved = np.zeros_like(target), np.roll(target, 8, axis=1)
    penalty = 50.0 if spec.penalty == "diagonal" else 0.0
    assert score(empty, target)[stored] == score(target, empty)[stored] == penalty
    assert score(empty, empty)[stored] == spec.both_empty
    perfect, worse = score(target, target)[stored], score(moved, target)[stored]
    assert perfect == spec.perfect
    assert (perfect > worse) == spec.higher_is_better


def test_the_direction_of_the_metrics_is_this_one():
    lower = {name for name, spec in METRICS.items() if not spec.higher_is_better}
    assert lower == {"hd95", "assd", "calibration_error"}


def test_the_table_of_metrics_and_of_losses_import_neither_torch_nor_monai():
    code = (
        "import sys, segnetr.losses; bad = {'torch', 'monai', 'numpy'} & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_accepted_by_the_configuration_and_can_be_built(name):
    assert TypeAdapter(TrainConfig).validate_python({"loss": name}).loss == name
    assert LOSSES[name].help.endswith(".")
    value = build_loss(name, num_classes=2)(torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4).long())
    assert value.dtype == torch.float32
    assert value.shape == ()
    assert value > 0


def test_a_misspelled_loss_is_answered_with_the_nearest_name():
    with pytest.raises(
        UsageError, match="unknown loss 'tverski'; did you mean 'tversky'"
    ) as caught:
        build_loss("tverski", num_classes=2)
    assert "\n" not in str(caught.value)


def test_the_configuration_knows_exactly_the_architectures_of_the_table():
    names = []
    for config in get_args(get_args(ModelConfig)[0]):
        names += get_args(config.__pydantic_fields__["architecture"].annotation)
    assert sorted(names) == sorted(ARCHITECTURES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_builder_of_an_architecture_can_be_imported(name):
    assert callable(get_builder(name))


@pytest.mark.slow
def test_a_segnetr_network_is_built_without_monai():
    code = (
        "import sys; from segnetr.config.schema.segmentation import SegNetrConfig; "
        "from segnetr.models.build import build_model; "
        "build_model(SegNetrConfig(width=4), in_channels=3, num_classes=2, image_size=(32, 32)); "
        "assert 'monai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

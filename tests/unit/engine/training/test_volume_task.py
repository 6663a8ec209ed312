"""Test validation on volumes with MONAI's inferers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.volume_files import draw_volume
from torch import nn

from segnetr.config.schema.intensity import IntensityConfig
from segnetr.config.schema.segmentation import PredictConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.readers.image_file import ImageFile
from segnetr.engine.inference.predictor import Predictor
from segnetr.engine.training.tasks import dice_by_image
from segnetr.engine.training.volume_task import VolumeInferer, build_inferer
from segnetr.errors import ReadError

SIZE = (32, 32)
PERCENTILES = IntensityConfig(kind="percentiles")


def make_network(channels: int = 1, classes: int = 3) -> nn.Module:
    """Build a small network whose output at a pixel depends on its neighborhood in the window."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5, padding=2), nn.GELU(), nn.Conv2d(8, classes, 5, padding=2)
    ).eval()


def make_volume(shape: tuple[int, ...], spacing: tuple[float, ...] = (1.5, 1.5, 1.5)) -> ImageFile:
    """Draw a volume with noise."""
    values, _ = draw_volume(shape[:3])
    noise = np.random.default_rng(0).normal(0, 0.3 * values.std(), values.shape)
    array = (values + noise).astype(np.float32)
    if len(shape) == 4:
        array = np.repeat(array[..., None], shape[3], axis=3)
    return ImageFile(
        path=Path("drawn.nii"), array=array, kind="volume", spacing=spacing, affine=np.eye(4)
    )


def predict_both_ways(
    volume: ImageFile, config: PredictConfig, slices: SliceConfig, *, channels: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of MONAI's inferer and of the predictor of `segnetr predict`."""
    network = make_network(channels)
    inferer = VolumeInferer(
        inferer=build_inferer(config, SIZE),
        mode=config.mode,
        batch_size=config.window_batch,
        intensity=PERCENTILES,
        image_size=SIZE,
        channels=channels,
        slices=slices,
    )
    predictor = Predictor(
        network,
        config=config,
        intensity=PERCENTILES,
        image_size=SIZE,
        num_classes=3,
        channels=channels,
        slices=slices,
    )
    return inferer(network, volume), predictor.predict(volume).labels


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("mode", ["resize", "window"])
@pytest.mark.parametrize("shape", [(31, 43, 26), (60, 70, 5), (1, 40, 3)])
def test_monai_inferer_predicts_the_same_labels_as_the_predictor(axis, mode, shape):
    """Compare labels for small, large and odd sizes along each axis."""
    config = PredictConfig(mode=mode, window_batch=3)
    ours, theirs = predict_both_ways(make_volume(shape), config, SliceConfig(axis=axis))
    assert ours.shape == theirs.shape == shape
    # Rounding may swap two equally probable classes.
    assert (ours != theirs).mean() < 1e-3
    pair = (
        torch.from_numpy(np.ascontiguousarray(x)).flatten(1)[None, None] for x in (ours, theirs)
    )
    assert dice_by_image(*pair, num_classes=3).item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("weights", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_overlap_and_weights_of_windows_agree_with_the_predictor(weights, overlap):
    """Compare labels with neighbors, resampling and several windows per slice."""
    config = PredictConfig(mode="window", overlap=overlap, weights=weights, window_batch=2)
    slices = SliceConfig(neighbors=1, spacing_mm=1.2)
    volume = make_volume((50, 61, 4), (1.5, 1.5, 4.0))
    ours, theirs = predict_both_ways(volume, config, slices, channels=3)
    assert len(np.unique(ours)) > 1
    assert (ours != theirs).mean() < 1e-3


def test_volume_with_a_wrong_number_of_channels_is_rejected():
    """Check that the message contains both numbers."""
    config = PredictConfig(mode="window")
    with pytest.raises(ReadError, match="2 channels where the model takes 3"):
        predict_both_ways(make_volume((40, 40, 3, 2)), config, SliceConfig(), channels=3)


def test_network_that_returns_nan_is_rejected():
    """Check that the error of a diverged network contains the file name."""

    class Diverged(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.repeat(1, 2, 1, 1) * float("nan")

    inferer = VolumeInferer(
        inferer=build_inferer(PredictConfig(mode="resize"), SIZE),
        mode="resize",
        batch_size=4,
        intensity=PERCENTILES,
        image_size=SIZE,
        channels=1,
        slices=SliceConfig(),
    )
    with pytest.raises(ReadError, match=r"drawn\.nii.*NaN"):
        inferer(Diverged(), make_volume((20, 20, 3)))

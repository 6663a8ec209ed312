"""Sliding windows of MONAI and our own: the same result, in either direction."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer
from torch import Tensor, nn

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig
from segnetr.data.readers.image_file import ImageFile
from segnetr.engine.inference.monai_inferer import BoundedWindowInferer, make_validation_inferer
from segnetr.engine.inference.predictor import Prediction, Predictor

SIZE = (24, 16)


class PositionDependent(nn.Module):
    """A network whose output depends on the position in the window, so that weights matter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv2d(1, 8, 5, padding=2)
        self.second = nn.Conv2d(8, 5, 5, padding=2)

    def forward(self, image: Tensor) -> Tensor:
        ramp = torch.linspace(0, 1, image.shape[3])
        return self.second(torch.relu(self.first(image)) * (0.5 + ramp)) * 4


def predict(inferer: str, image: ImageFile, **settings: Any) -> Prediction:
    predictor = Predictor(
        PositionDependent(),
        config=PredictConfig(**{"mode": "window", "inferer": inferer, **settings}),
        intensity=IntensityConfig(mean=(0.0,), std=(1.0,)),
        image_size=SIZE,
        num_classes=5,
        channels=1,
    )
    return predictor.predict(image, keep_probabilities=True, keep_uncertainty=True)


@pytest.mark.parametrize("grid", [(24, 16), (61, 47), (24, 100), (9, 7), (9, 40), (1, 1)])
@pytest.mark.parametrize("weights", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_predictor_gives_the_same_probabilities_with_either_inferer(
    grid: tuple[int, int], weights: str, overlap: float
) -> None:
    values = np.random.default_rng(0).random((*grid, 1)).astype(np.float32)
    image = ImageFile(path=Path("image.png"), array=values, kind="image")
    bounded = predict("bounded", image, weights=weights, overlap=overlap)
    monai = predict("monai", image, weights=weights, overlap=overlap)
    np.testing.assert_allclose(monai.probabilities, bounded.probabilities, atol=1e-5, rtol=0)


def test_predictor_gives_the_same_volume_and_variance_with_either_inferer() -> None:
    values = np.random.default_rng(0).random((40, 30, 3)).astype(np.float32)
    volume = ImageFile(path=Path("a.nii"), array=values, kind="volume", affine=np.eye(4))
    bounded, monai = (predict(name, volume, tta="flips") for name in ("bounded", "monai"))
    np.testing.assert_allclose(monai.probabilities, bounded.probabilities, atol=1e-5, rtol=0)
    assert bounded.uncertainty is not None
    assert monai.uncertainty is not None
    np.testing.assert_allclose(
        monai.uncertainty.variance, bounded.uncertainty.variance, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("grid", [(24, 16), (61, 47), (24, 100), (9, 7), (9, 40), (1, 1)])
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.8])
def test_adapter_agrees_with_the_inferer_of_monai(
    grid: tuple[int, int], mode: str, overlap: float
) -> None:
    network = PositionDependent().eval()
    images = torch.rand(2, 1, *grid, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = BoundedWindowInferer(SIZE, sw_batch_size=3, overlap=overlap, mode=mode)(
            images, network
        )
        theirs = SlidingWindowInferer(SIZE, sw_batch_size=3, overlap=overlap, mode=mode)(
            images, network
        )
    assert ours.shape == (2, 5, *grid)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_adapter_passes_arguments_to_the_network() -> None:
    inferer = BoundedWindowInferer(SIZE)
    images = torch.ones(1, 1, 30, 30)
    scaled = inferer(images, lambda batch, factor, *, shift: batch * factor + shift, 2, shift=1)
    torch.testing.assert_close(scaled, torch.full((1, 1, 30, 30), 3.0))


def test_adapter_works_in_a_supervised_evaluator_of_monai() -> None:
    from monai.engines import SupervisedEvaluator

    network = PositionDependent()
    image = torch.rand(1, 1, 61, 47, generator=torch.Generator().manual_seed(0))
    outputs = []
    for inferer in (
        BoundedWindowInferer(SIZE, overlap=0.5),
        SlidingWindowInferer(SIZE, overlap=0.5, mode="gaussian"),
    ):
        evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=[{"image": image, "label": torch.zeros(1, 1, 61, 47)}],
            network=network,
            inferer=inferer,
        )
        evaluator.run()
        outputs.append(evaluator.state.output[0]["pred"])
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)


def test_validation_uses_the_simple_inferer_for_resized_images_and_windows_otherwise() -> None:
    assert isinstance(make_validation_inferer(PredictConfig(mode="resize"), SIZE), SimpleInferer)
    windows = make_validation_inferer(PredictConfig(mode="window", overlap=0.25), SIZE)
    assert isinstance(windows, SlidingWindowInferer)
    assert (windows.roi_size, windows.overlap) == (SIZE, 0.25)

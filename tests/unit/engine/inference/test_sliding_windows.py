"""Windows over a plane: where they lie, what their mean is, and that it is MONAI's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig
from segnetr.data.readers.image_file import ImageFile
from segnetr.engine.inference.predictor import Predictor
from segnetr.engine.inference.sliding_windows import (
    WindowAccumulator,
    gather_planes,
    make_window_grid,
)
from segnetr.errors import ModelFileError, UsageError

CPU = torch.device("cpu")
PLAIN = IntensityConfig(mean=(0.0,), std=(1.0,))


class Mixed(nn.Module):
    """Answers that depend on the place in the window, so that weights and places show."""

    def __init__(self, channels: int = 1, classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv2d(channels, 8, 5, padding=2)
        self.second = nn.Conv2d(8, classes, 5, padding=2)
        self.batches: list[int] = []

    def forward(self, image: Tensor) -> Tensor:
        self.batches.append(len(image))
        ramp = torch.linspace(0, 1, image.shape[3])
        return self.second(torch.relu(self.first(image)) * (0.5 + ramp)) * 4


def make_predictor(model: nn.Module, *, size: tuple[int, int] = (24, 16), **changes: Any):
    settings = {"mode": "window", **changes}
    return Predictor(
        model,
        config=PredictConfig(**settings),
        intensity=PLAIN,
        image_size=size,
        num_classes=5,
        channels=1,
    )


def pixels(height: int, width: int) -> ImageFile:
    values = np.random.default_rng(0).random((height, width, 1)).astype(np.float32)
    return ImageFile(path=Path("drawn.png"), array=values, kind="image")


@pytest.mark.parametrize(
    "grid", [(24, 16), (61, 47), (24, 100), (100, 16), (9, 7), (9, 40), (1, 1)]
)
@pytest.mark.parametrize("weights", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_windows_agree_with_those_of_monai(
    grid: tuple[int, int], weights: str, overlap: float
) -> None:
    model, image = Mixed().eval(), pixels(*grid)
    predictor = make_predictor(model, weights=weights, overlap=overlap)
    found = predictor.predict(image, keep_probabilities=True)
    with torch.inference_mode():
        expected = sliding_window_inference(
            torch.from_numpy(image.array).permute(2, 0, 1)[None],
            roi_size=(24, 16),
            sw_batch_size=3,
            predictor=lambda batch: model(batch).softmax(dim=1),
            overlap=overlap,
            mode=weights,
        )[0].numpy()
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(found.labels, found.probabilities.argmax(axis=0))


@pytest.mark.parametrize("tta", ["none", "flips", "d4"])
@pytest.mark.parametrize("grid", [(61, 47), (9, 40)])
def test_windows_of_several_slices_share_a_forward_pass(tta: str, grid: tuple[int, int]) -> None:
    values = np.random.default_rng(2).random((*grid, 5)).astype(np.float32)
    volume = ImageFile(path=Path("a.nii"), array=values, kind="volume", affine=np.eye(4))
    alone, together = Mixed(), Mixed()
    one = make_predictor(alone, size=(16, 16), window_batch=1, tta=tta).predict(volume)
    many = make_predictor(together, size=(16, 16), window_batch=7, tta=tta).predict(volume)
    views = {"none": 1, "flips": 4, "d4": 8}[tta]
    assert set(alone.batches) == {views}
    windows = len(alone.batches)
    full, rest = divmod(windows, 7)
    assert together.batches == [7 * views] * full + ([rest * views] if rest else [])
    assert (one.labels != many.labels).mean() < 1e-3
    assert len(np.unique(one.labels)) > 1


def test_only_the_rows_of_one_band_are_kept() -> None:
    grid = make_window_grid((1000, 16), (8, 8), overlap=0.5, weights="gaussian", device=CPU)
    sums = WindowAccumulator(grid, index=3, num_classes=2, dtype=torch.float32)
    assert sums._sums.shape == (2, 8, 16)
    bands = [
        band for corner in grid.corners for band in sums.add(corner, torch.full((2, 8, 8), 0.25))
    ]
    bands.append(sums.result())
    assert [band.top for band in bands] == list(range(0, 993, 4))
    ((index, plane),) = gather_planes(iter(bands), 1000)
    assert index == 3
    torch.testing.assert_close(plane, torch.full((2, 1000, 16), 0.25))


def test_half_precision_sums_cost_at_most_three_decimal_places() -> None:
    torch.manual_seed(0)
    planes = []
    for dtype in (torch.float32, torch.float16):
        torch.manual_seed(0)
        grid = make_window_grid((50, 40), (16, 16), overlap=0.7, weights="gaussian", device=CPU)
        sums = WindowAccumulator(grid, index=0, num_classes=4, dtype=dtype)
        bands = [
            band
            for corner in grid.corners
            for band in sums.add(corner, torch.randn(4, 16, 16).softmax(0))
        ]
        planes.append(next(gather_planes(iter([*bands, sums.result()]), 50))[1])
    assert float((planes[0] - planes[1]).abs().max()) < 4e-3
    assert not torch.equal(planes[0], planes[1])


def test_rotated_image_gives_rotated_probabilities_with_d4() -> None:
    model = Mixed()
    image = pixels(32, 32)
    predictor = make_predictor(model, size=(32, 32), tta="d4")
    straight = predictor.predict(image, keep_probabilities=True).probabilities
    for turns in (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(image.array, turns))
        file = ImageFile(path=image.path, array=turned, kind="image")
        found = predictor.predict(file, keep_probabilities=True).probabilities
        np.testing.assert_allclose(np.rot90(found, -turns, axes=(1, 2)), straight, atol=1e-5)
    flips = make_predictor(model, size=(32, 32), tta="flips").predict(
        image, keep_probabilities=True
    )
    assert np.abs(flips.probabilities - straight).max() > 1e-3


def test_quarter_turns_of_oblong_windows_are_rejected() -> None:
    with pytest.raises(UsageError, match="24 x 16 pixels; use --tta flips"):
        make_predictor(Mixed(), tta="d4")


def test_ensemble_of_different_window_sizes_predicts_on_the_grid() -> None:
    values = np.random.default_rng(2).random((40, 33, 3)).astype(np.float32)
    volume = ImageFile(path=Path("a.nii"), array=values, kind="volume", affine=np.eye(4))
    members = [
        make_predictor(Mixed(), size=(24, 16)),
        make_predictor(Mixed(), size=(16, 16), overlap=0.2),
        make_predictor(Mixed(), size=(20, 20), mode="resize"),
    ]
    alone = [each.predict(volume, keep_probabilities=True) for each in members]
    joined = Predictor.ensemble(members).predict(volume, keep_probabilities=True)
    expected = np.mean([each.probabilities for each in alone], axis=0)
    np.testing.assert_allclose(joined.probabilities, expected, atol=1e-6)
    voted = Predictor.ensemble(members, combination="vote").predict(volume, keep_probabilities=True)
    voices = np.stack([each.labels for each in alone])
    shares = np.stack([(voices == index).mean(axis=0) for index in range(5)])
    np.testing.assert_allclose(voted.probabilities, shares, atol=1e-6)
    most = shares.max(axis=0)
    np.testing.assert_array_equal(
        np.take_along_axis(shares, voted.labels[None].astype(int), 0)[0], most
    )
    clear = most > 0.5
    assert 0.2 < clear.mean() < 1
    assert (voted.labels != joined.labels).any()
    split = ~clear
    np.testing.assert_array_equal(voted.labels[split], joined.labels[split])


def test_ensemble_of_different_classes_or_axes_is_rejected() -> None:
    first = make_predictor(Mixed())
    other = Predictor(
        Mixed(classes=3), config=PredictConfig(), intensity=PLAIN, image_size=(8, 8),
        num_classes=3, channels=1,
    )  # fmt: skip
    with pytest.raises(ModelFileError, match="classes 5 and 3"):
        Predictor.ensemble([first, other])

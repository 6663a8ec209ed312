"""Whole files through a network: grids, windows, mirroring, batches, memory."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig, SegNetrConfig
from segnetr.data.readers.image_file import ImageFile
from segnetr.engine.inference.predictor import Prediction, Predictor
from segnetr.errors import ReadError
from segnetr.models.build import build_model

PLAIN = IntensityConfig(mean=(0.0,), std=(1.0,))
MODES = ("resize", "window")


class Threshold(nn.Module):
    """Says foreground where the first channel is above one half, and counts its calls."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.batches: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.batches.append(tuple(image.shape))
        step = image[:, :1] * self.num_classes
        centers = torch.arange(self.num_classes, dtype=image.dtype).view(1, -1, 1, 1) + 0.5
        return -20 * (step - centers).abs()


class Calm(nn.Module):
    """A network with random weights whose logits are as far apart as those of a trained one."""

    num_classes = 3

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image) / 10


def pixels(array: NDArray[Any]) -> ImageFile:
    return ImageFile(path=Path("drawn.png"), array=array, kind="image")


def volume(array: NDArray[Any]) -> ImageFile:
    return ImageFile(path=Path("drawn.nii.gz"), array=array, kind="volume", affine=np.eye(4))


def make_predictor(
    model: nn.Module, *, size: tuple[int, int] = (32, 32), channels: int = 1, **settings: Any
) -> Predictor:
    return Predictor(
        model,
        config=PredictConfig(**settings),
        intensity=PLAIN,
        image_size=size,
        num_classes=getattr(model, "num_classes", 2),
        channels=channels,
    )


def draw_disc(height: int, width: int, *, channels: int = 1) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows / height - 0.5) ** 2 + (columns / width - 0.4) ** 2) < 0.09
    return np.repeat(inside[..., None].astype(np.uint8) * 255, channels, axis=2)


def dice(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    config = SegNetrConfig(width=8, mixing="position")
    model = build_model(config, in_channels=3, num_classes=3, image_size=(32, 32))
    return Calm(model)


def random_image(height: int = 45, width: int = 70) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tta", ["none", "flips"])
@pytest.mark.parametrize(
    "grid", [(33, 57), (32, 32), (1, 40), (40, 1), (1, 1), (7, 200), (130, 90)]
)
def test_labels_are_on_the_grid_of_the_image(mode: str, tta: str, grid: tuple[int, int]) -> None:
    shown = draw_disc(*grid)
    result = make_predictor(Threshold(), mode=mode, tta=tta).predict(pixels(shown))
    assert result.labels.shape == grid
    assert result.labels.dtype == np.uint8
    assert result.probabilities is None
    if min(grid) >= 32:
        assert dice(result.labels, (shown[..., 0] > 127).astype(np.uint8)) > 0.95


def test_image_of_the_training_size_is_segmented_exactly() -> None:
    shown = draw_disc(32, 48)
    for mode in MODES:
        result = make_predictor(Threshold(), size=(32, 48), mode=mode).predict(pixels(shown))
        np.testing.assert_array_equal(result.labels, shown[..., 0] // 255)


def test_small_lesion_in_a_corner_stays_in_its_corner() -> None:
    shown = np.zeros((90, 140, 1), dtype=np.uint8)
    shown[:30, 100:] = 255
    for mode, tta in itertools.product(MODES, ("none", "flips")):
        found = make_predictor(Threshold(), mode=mode, tta=tta).predict(pixels(shown)).labels
        assert dice(found, shown[..., 0] // 255) > 0.9, (mode, tta)


def test_resized_probabilities_are_the_softmax_interpolated_linearly(network: nn.Module) -> None:
    shown = random_image(64, 96)
    # A image of twice the width: the area mean of two neighbors is known without OpenCV.
    small = shown.reshape(64, 48, 2, 3).astype(np.float64).mean(axis=2)
    rounded = torch.from_numpy(np.rint(small).astype(np.float32) / 255).permute(2, 0, 1)[None]
    predictor = make_predictor(network, size=(64, 48), channels=3)
    with torch.inference_mode():
        expected = F.interpolate(
            network.eval()(rounded).softmax(1), (64, 96), mode="bilinear", align_corners=False
        )[0]
    found = predictor.predict(pixels(shown), keep_probabilities=True).probabilities
    assert found is not None
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tta", ["none", "flips"])
def test_probabilities_sum_to_one_and_their_greatest_is_the_label(
    network: nn.Module, mode: str, tta: str
) -> None:
    predictor = make_predictor(network, channels=3, mode=mode, tta=tta)
    result = predictor.predict(pixels(random_image()), keep_probabilities=True)
    assert result.probabilities is not None
    assert result.probabilities.shape == (3, 45, 70)
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(result.probabilities.argmax(axis=0), result.labels)
    bare = predictor.predict(pixels(random_image()))
    np.testing.assert_array_equal(bare.labels, result.labels)


@pytest.mark.parametrize("mode", MODES)
def test_flipped_image_gives_flipped_probabilities_with_flips(
    network: nn.Module, mode: str
) -> None:
    shown = random_image(64, 64)
    predictor = make_predictor(network, size=(64, 64), channels=3, mode=mode, tta="flips")
    straight = _probabilities(predictor, shown)
    for axes in ((0,), (1,), (0, 1)):
        turned = _probabilities(predictor, np.flip(shown, axes).copy())
        back = np.flip(turned, [axis + 1 for axis in axes])
        np.testing.assert_allclose(back, straight, atol=1e-5)
    alone = _probabilities(make_predictor(network, size=(64, 64), channels=3, mode=mode), shown)
    assert np.abs(alone - straight).max() > 1e-4


def _probabilities(predictor: Predictor, array: NDArray[Any]) -> NDArray[np.float32]:
    found = predictor.predict(pixels(array), keep_probabilities=True).probabilities
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tta", ["none", "flips"])
def test_prediction_does_not_depend_on_the_batch_size(
    network: nn.Module, mode: str, tta: str
) -> None:
    shown = np.random.default_rng(5).integers(0, 256, (40, 50, 5), dtype=np.uint8)
    answers = [
        make_predictor(network, channels=3, mode=mode, tta=tta, window_batch=together).predict(
            volume(shown), keep_probabilities=True
        )
        for together in (1, 2, 7)
    ]
    for other in answers[1:]:
        np.testing.assert_allclose(other.probabilities, answers[0].probabilities, atol=1e-5)
    again = make_predictor(network, channels=3, mode=mode, tta=tta, window_batch=7)
    repeated = again.predict(volume(shown), keep_probabilities=True)
    np.testing.assert_array_equal(repeated.probabilities, answers[2].probabilities)


def test_flips_and_slices_share_a_forward_pass() -> None:
    model = Threshold()
    predictor = make_predictor(model, tta="flips", window_batch=3)
    predictor.predict(volume(np.zeros((20, 24, 7), dtype=np.uint8)))
    assert [shape[0] for shape in model.batches] == [12, 12, 4]


@pytest.mark.parametrize("mode", MODES)
def test_volume_equals_its_slices_predicted_one_by_one(network: nn.Module, mode: str) -> None:
    shown = np.random.default_rng(6).integers(0, 256, (31, 43, 4), dtype=np.uint8)
    predictor = make_predictor(network, channels=3, mode=mode)
    whole = predictor.predict(volume(shown), keep_probabilities=True)
    assert whole.labels.shape == shown.shape
    for depth in range(4):
        alone = predictor.predict(pixels(shown[:, :, depth, None]), keep_probabilities=True)
        np.testing.assert_allclose(whole.probabilities[..., depth], alone.probabilities, atol=1e-5)


def test_volume_keeps_no_probabilities_unless_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    empty = np.empty
    monkeypatch.setattr(
        np, "empty", lambda shape, *a, **k: made.append(shape) or empty(shape, *a, **k)
    )
    shown = np.zeros((32, 32, 6), dtype=np.uint8)
    predictor = make_predictor(Threshold())
    assert predictor.predict(volume(shown)).probabilities is None
    assert (2, 32, 32, 6) not in made
    predictor.predict(volume(shown), keep_probabilities=True)
    assert (2, 32, 32, 6) in made


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_every_gray_value_type_gives_the_same_mask(dtype: type) -> None:
    scale = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    shown = (draw_disc(40, 60) // 255).astype(dtype) * dtype(scale)
    found = make_predictor(Threshold()).predict(pixels(shown)).labels
    reference = make_predictor(Threshold()).predict(pixels(draw_disc(40, 60))).labels
    np.testing.assert_array_equal(found, reference)


def test_gray_file_fills_the_channels_of_a_color_model() -> None:
    model = Threshold()
    make_predictor(model, channels=3).predict(pixels(draw_disc(40, 40)))
    assert model.batches[0][1] == 3


def test_color_file_for_a_gray_model_is_rejected_by_name() -> None:
    with pytest.raises(ReadError, match=r"drawn\.png: it has 3 channels where the model takes 1"):
        make_predictor(Threshold()).predict(pixels(draw_disc(40, 40, channels=3)))


def test_nan_from_the_network_is_rejected_by_name() -> None:
    class Broken(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return torch.full((len(image), 2, *image.shape[2:]), float("nan"))

    with pytest.raises(ReadError, match=r"drawn\.png: the network returned NaN for this image"):
        make_predictor(Broken()).predict(pixels(draw_disc(40, 40)))


def test_network_with_other_classes_is_rejected() -> None:
    model = Threshold(num_classes=4)
    predictor = Predictor(
        model,
        config=PredictConfig(),
        intensity=PLAIN,
        image_size=(32, 32),
        num_classes=2,
        channels=1,
    )
    with pytest.raises(ValueError, match="instead of"):
        predictor.predict(pixels(draw_disc(40, 40)))


def test_labels_of_several_classes_are_their_indices() -> None:
    shown = np.repeat(np.array([20, 100, 150, 230], np.uint8), 16)[None, :, None].repeat(64, 0)
    result = make_predictor(Threshold(4), size=(64, 64)).predict(pixels(shown))
    assert isinstance(result, Prediction)
    np.testing.assert_array_equal(np.unique(result.labels), [0, 1, 2, 3])
    np.testing.assert_array_equal(result.labels[0, ::16], [0, 1, 2, 3])


def test_prediction_does_not_modify_the_array_of_the_file() -> None:
    for shown in (draw_disc(32, 32), draw_disc(32, 32).astype(np.float32)):
        before = shown.copy()
        shown.setflags(write=False)
        make_predictor(Threshold()).predict(pixels(shown))
        np.testing.assert_array_equal(shown, before)

"""Explanations: known results on synthetic networks, and a result for every family."""

import csv
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hybrid_backbones import AttentionCall, Backbone, EncoderOutput, FeatureInfo, create_model
from segnetr.config.schema.classification import ClassifyPredictConfig
from segnetr.config.schema.classification_recipe import ClassificationAugmentConfig
from segnetr.config.schema.segmentation import IntensityConfig
from segnetr.errors import UsageError
from segnetr.outputs.charts.heatmap import draw_heatmap
from segnetr.outputs.explanations import attention_distance
from segnetr.outputs.explanations.attention_distance import (
    LayerDistances,
    attention_distances,
    draw_distances,
    format_distances,
)
from segnetr.outputs.explanations.explain import explain_image
from segnetr.outputs.explanations.grad_cam import grad_cam
from segnetr.outputs.models.classifier_file import ClassifierCard, write_classifier
from segnetr.progress import Progress
from segnetr.workflows.classification.predict import predict_classes
from segnetr.workflows.prediction.predict import PredictOptions, predict

FAMILIES = {
    "cmt_ti": {"image_size": 64, "depths": (1, 1, 1, 1)},
    "cvt_13": {"depths": (1, 1, 2)},
    "moa_tiny": {"depths": (1, 1, 1), "image_size": 112},
    "mobile_former_26m": {},
    "mobilevit_xxs": {},
    "swin_tiny": {"depths": (1, 1, 2, 1)},
    "vitae_tiny": {"depths": (0, 0, 2)},
    "vitae_base": {"embed_dim": 96, "depth": 2, "num_heads": 3, "image_size": 64},
    "vitaev2_s": {"depths": (1, 1, 1, 1)},
}


class Brightness(Backbone):
    """Class 0 is seen in bright places, class 1 in dark ones; both maps are the image's."""

    def __init__(self, strides=(1, 2)):
        super().__init__()
        self.num_classes = 2
        self.stages = nn.ModuleList(nn.AvgPool2d(stride) for stride in strides)
        self.feature_info = tuple(
            FeatureInfo(1, math.prod(strides[: k + 1]), f"stages.{k}") for k in range(len(strides))
        )

    def encode(self, image):
        maps = []
        for stage in self.stages:
            image = stage(image)
            maps.append(image)
        return EncoderOutput(maps)

    def forward_head(self, encoded):
        mean = encoded.maps[-1].mean((1, 2, 3))
        return torch.stack([mean, -mean], 1)

    def convert_published(self, state):
        return dict(state)


class ChannelsLast(Brightness):
    """Hands out copies in another layout than it works in, as Swin does between its stages."""

    def encode(self, image):
        maps = []
        for stage in self.stages:
            image = stage(image)
            maps.append(image.clone())
        return EncoderOutput([*maps[:-1], image])


def spot(size=(8, 8), place=(2, 6)):
    image = torch.zeros(1, 1, *size)
    image[0, 0, place[0] : place[0] + 2, place[1] : place[1] + 2] = 1
    return image


@pytest.mark.parametrize("kind", [Brightness, ChannelsLast])
@pytest.mark.parametrize("level", [0, 1, -1, -2])
def test_grad_cam_finds_the_region_that_determines_the_class(kind, level):
    heat = grad_cam(kind(), spot(), target=0, level=level)
    assert heat.shape == (8, 8)
    assert heat.dtype == np.float32
    assert heat.max() == 1
    if level in (0, -2):
        np.testing.assert_array_equal(heat, spot()[0, 0].numpy())
    else:
        assert heat[2:4, 6:8].min() >= 0.5
        assert heat[5:, :].max() == 0
        assert heat[:, :5].max() == 0


def test_evidence_against_a_class_is_not_shown():
    assert grad_cam(Brightness(), spot(), target=1).max() == 0


def test_channels_are_weighted_by_the_mean_gradient():
    torch.manual_seed(0)
    model = create_model("mobilevit_xxs", num_classes=4).eval()
    image = torch.randn(1, 3, 64, 64)
    features = model.encode(image).maps[2].detach().requires_grad_()
    x = features
    for stage in list(model.stages)[3:]:
        x = stage(x)
    score = model.forward_head(EncoderOutput([x]))[0, 2]
    weights = torch.autograd.grad(score, features)[0].mean((2, 3), keepdim=True)
    expected = torch.relu((weights * features).sum(1))[0].detach()
    expected = expected / expected.max()
    heat = grad_cam(model, image, target=2, level=2)
    centers = heat.reshape(8, 8, 8, 8)[:, 3:5, :, 3:5].mean((1, 3))
    # Linear growth keeps a map's values around the middles of its places.
    assert np.corrcoef(centers.ravel(), expected.numpy().ravel())[0, 1] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_a_heat_map_at_every_level(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **FAMILIES[name]).train()
    model.requires_grad_(False)
    image = torch.randn(1, 3, 70, 45)
    for level in range(len(model.feature_info)):
        for target in range(3):
            heat = grad_cam(model, image, target=target, level=level)
            assert heat.shape == (70, 45)
            assert np.isfinite(heat).all()
            assert 0 <= heat.min() <= heat.max() <= 1
            if heat.max() == 1:
                break
        else:
            pytest.fail("no class gains anything from any place")
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_class_token_networks_use_the_positions_before_the_last_block():
    torch.manual_seed(0)
    model = create_model("cvt_13", num_classes=3, depths=(1, 1, 2)).eval()
    image = torch.randn(1, 3, 64, 64)
    heat = grad_cam(model, image, target=0)
    assert 0 < heat.mean() < 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"target": 2}, "class 2"),
        ({"target": -1}, "class -1"),
        ({"target": 0, "level": 2}, "level 2"),
        ({"target": 0, "level": -3}, "level -3"),
    ],
)
def test_errors_name_unknown_class_and_level(arguments, word):
    with pytest.raises(ValueError, match=word):
        grad_cam(Brightness(), spot(), **arguments)


def test_more_than_one_image_is_rejected():
    with pytest.raises(ValueError, match="expected"):
        grad_cam(Brightness(), spot().expand(2, -1, -1, -1), target=0)


def made_call(scores: torch.Tensor, places: torch.Tensor, bias=None) -> AttentionCall:
    """An attention of one head whose products are `scores` (L, L)."""
    count = len(scores)
    return AttentionCall(
        name="made",
        queries=scores.reshape(1, 1, 1, count, count),
        keys=torch.eye(count).reshape(1, 1, 1, count, count),
        bias=bias,
        scale=1.0,
        query_positions=places[None],
        key_positions=places[None],
    )


def line(count: int, step: float = 1.0) -> torch.Tensor:
    return torch.stack([torch.zeros(count), step * torch.arange(count)], 1)


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("rows", [1 << 24, 9])
def test_uniform_attention_has_the_mean_distance_of_two_positions(count, rows, monkeypatch):
    monkeypatch.setattr(attention_distance, "_MOST_WEIGHTS", rows)
    call = made_call(torch.zeros(count, count), line(count, step=4))
    (distance,) = attention_distance._measure(call).pixels
    # Two places drawn from n on a line, one apart: (n^2 - 1) / 3n.
    assert distance == pytest.approx(4 * (count**2 - 1) / (3 * count), rel=1e-6)


def test_self_attention_of_a_position_has_distance_zero():
    call = made_call(torch.eye(9) * 1000, line(9))
    assert attention_distance._measure(call).pixels == (0.0,)


def test_tokens_without_position_are_excluded():
    places = line(5)
    places[0] = torch.nan
    scores = torch.zeros(5, 5)
    scores[:, 0] = 3.0  # all attend mostly to the token
    (distance,) = attention_distance._measure(made_call(scores, places)).pixels
    assert distance == pytest.approx((4**2 - 1) / (3 * 4), rel=1e-5)


def test_attention_mask_is_applied():
    bias = torch.full((1, 1, 1, 4, 4), -torch.inf)
    for place in range(4):
        bias[..., place, place ^ 1] = 0  # each sees its neighbor alone
    assert attention_distance._measure(made_call(torch.zeros(4, 4), line(4), bias)).pixels == (1.0,)


@pytest.mark.parametrize("name", FAMILIES)
def test_distances_of_every_network_are_within_its_receptive_field(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **FAMILIES[name]).eval()
    layers = attention_distances(model, torch.randn(2, 3, 64, 64))
    assert bool(layers) == (name != "mobile_former_26m")
    modules = dict(model.named_modules())
    for layer in layers:
        assert layer.name in modules
        # A sequence of one place, as MobileViT has at its end, looks at itself.
        assert all(0 <= pixels < 64 * math.sqrt(2) for pixels in layer.pixels)
        assert layer.mean == pytest.approx(np.mean(layer.pixels))
    if layers:
        assert min(layers[0].pixels) > 0
    if name.startswith("swin"):
        # Windows of 7 places of stride 4; the later maps are smaller than that.
        assert all(pixels < 7 * 4 * math.sqrt(2) for pixels in layers[0].pixels)


def test_untrained_attention_is_nearly_uniform():
    torch.manual_seed(0)
    model = create_model("vitae_base", num_classes=2, **FAMILIES["vitae_base"]).eval()
    rows, columns = np.mgrid[:4, :4].reshape(2, -1) * 16.0
    uniform = np.hypot(rows[:, None] - rows, columns[:, None] - columns).mean()
    for layer in attention_distances(model, torch.randn(1, 3, 64, 64)):
        assert layer.pixels == pytest.approx([uniform] * 3, rel=0.05)


LAYERS = [
    LayerDistances(name="stage.0.attn", pixels=(3.0, 9.5)),
    LayerDistances(name="stage.1.attn", pixels=(20.0, 25.0, 30.25)),
]


def test_table_has_a_line_for_each_head():
    rows = list(csv.DictReader(format_distances(LAYERS).splitlines()))
    assert [(row["layer"], row["head"], float(row["distance_pixels"])) for row in rows] == [
        ("1", "1", 3.0), ("1", "2", 9.5), ("2", "1", 20.0), ("2", "2", 25.0), ("2", "3", 30.25),
    ]  # fmt: skip
    assert rows[-1]["name"] == "stage.1.attn"


def test_plot_has_a_dot_for_each_head_at_its_height():
    root = ElementTree.fromstring(draw_distances(LAYERS))
    tag = "{http://www.w3.org/2000/svg}circle"
    dots = [circle for circle in root.iter(tag) if circle.get("fill-opacity")]
    heights = [float(dot.get("cy")) for dot in dots]
    assert len(dots) == 5
    assert heights == sorted(heights, reverse=True)
    # 3, 9.5 and 30.25 pixels: in proportion.
    assert (heights[0] - heights[1]) / (heights[1] - heights[4]) == pytest.approx(
        6.5 / 20.75, abs=0.01
    )


def test_plot_without_layers_is_rejected():
    with pytest.raises(ValueError, match="no layer"):
        draw_distances([])


@pytest.mark.parametrize("channels", [1, 3])
def test_heatmap_colors_only_where_it_is_positive(channels):
    pixels = np.full((40, 30, channels), 90, dtype=np.uint8)
    heat = np.zeros((40, 30), dtype=np.float32)
    heat[:20] = 1
    synthetic = draw_heatmap(pixels, heat)
    assert synthetic.shape == (40, 30, 3)
    assert (synthetic[20:] == 90).all()
    assert (synthetic[:20] != 90).any(axis=2).all()


def test_heatmap_of_another_size_and_large_images_are_resized():
    pixels = np.zeros((50, 100, 3), dtype=np.uint8)
    assert draw_heatmap(pixels, np.ones((7, 7), np.float32), longest=60).shape == (30, 60, 3)


@pytest.mark.parametrize("name", ["mobilevit_xxs", "mobile_former_26m"])
@pytest.mark.parametrize("channels", [1, 3])
def test_explanation_writes_the_available_files(name, channels, tmp_path):
    torch.manual_seed(0)
    model = create_model(name, num_classes=2, in_channels=channels).eval()
    image = torch.randn(1, channels, 64, 48)
    paths = explain_image(model, image, target=1, out=tmp_path / "out", name="sub/a")
    names = [path.relative_to(tmp_path / "out").as_posix() for path in paths]
    attention = ["sub/a_attention.csv", "sub/a_attention.svg"]
    assert names == ["sub/a_cam.png", *(attention if name == "mobilevit_xxs" else [])]
    assert all(path.is_file() for path in paths)
    with Image.open(paths[0]) as pixels:
        assert pixels.size == (48, 64)
        assert pixels.mode == "RGB"


def test_explanation_is_drawn_over_the_given_image(tmp_path):
    pixels = np.full((16, 16, 3), 200, dtype=np.uint8)
    paths = explain_image(
        Brightness(), spot(), target=0, out=tmp_path, name="a", pixels=pixels, level=0
    )
    with Image.open(paths[0]) as file:
        synthetic = np.asarray(file)
    assert (synthetic[10:] == 200).all()
    assert (synthetic[4:8, 13:15] != 200).any()


@pytest.fixture
def classifier(tmp_path):
    """A model folder of an untrained classifier."""
    torch.manual_seed(0)
    network = create_model("mobilevit_xxs", num_classes=2)
    card = ClassifierCard(
        task="classification",
        backbone="mobilevit_xxs",
        classes=("dark", "bright"),
        num_classes=2,
        multi_label=False,
        in_channels=3,
        image_size=(64, 64),
        intensity=IntensityConfig(),
        fitting=ClassificationAugmentConfig(),
        predict=ClassifyPredictConfig(),
    )
    write_classifier(tmp_path / "model", network.state_dict(), card=card)
    return tmp_path / "model"


def test_prediction_explains_each_readable_file(classifier, tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    for name in ("a.png", "a.bmp", "sub/a.png"):
        Image.fromarray(pixels).save(folder / name)
    (folder / "b.png").write_bytes(b"no image")
    outcome = predict_classes(
        [folder],
        [classifier],
        tmp_path / "out",
        PredictOptions(explain=True, device="cpu"),
        progress=Progress(quiet=True),
    )
    assert len(outcome.done) == 3
    assert len(outcome.failed) == 1
    root = tmp_path / "out" / "explanations"
    written = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
    assert written == sorted(
        f"{name}_{kind}"
        for name in ("a.png", "a.bmp", "sub/a.png")
        for kind in ("cam.png", "attention.csv", "attention.svg")
    )
    with Image.open(root / "a.png_cam.png") as synthetic:
        assert synthetic.size == (64, 64)


def test_masks_are_not_explained(tmp_path):
    with pytest.raises(UsageError, match="--explain is for classifiers"):
        predict(
            [], [tmp_path], tmp_path, PredictOptions(explain=True), progress=Progress(quiet=True)
        )

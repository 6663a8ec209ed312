"""Test that every network satisfies the contract of `build_model`."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import TypeAdapter
from torch import nn

from segnetr.config.schema.segmentation import ModelConfig, MonaiConfig, SegNetrConfig
from segnetr.errors import UsageError
from segnetr.models.build import build_model
from segnetr.models.cost import count_macs, count_parameters

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / "configs" / "model"
SEGNETRS = ("segnetr", "segnetr_s", "segnetr_any", "segnetr_any_s")
U_SHAPES = (
    *("unet", "unet_irsc", "unet_segnetr", "unet_plus_plus", "unet_plus_plus_irsc"),
    *("segnet", "segnet_irsc", "unext", "unext_irsc", "unext_l"),
)
ALL = (*SEGNETRS, *U_SHAPES, "basic_unet", "attention_unet", "swin_unetr")
# Wide networks have an eighth of their width because the contract does not depend on it.
NARROW = {"width": 8, "widths": (8, 16, 16, 32, 32)}


def read_config(name: str) -> ModelConfig:
    fragment = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    config: ModelConfig = TypeAdapter(ModelConfig).validate_python(fragment["model"])
    return config


def build(
    name: str, *, channels: int = 3, classes: int = 2, side: int = 64, full: bool = False
) -> nn.Module:
    torch.manual_seed(0)
    config = read_config(name)
    if name in U_SHAPES and not full:
        config = replace(
            config, **{key: value for key, value in NARROW.items() if hasattr(config, key)}
        )
    return build_model(config, in_channels=channels, num_classes=classes, image_size=(side, side))


def test_every_configuration_file_is_covered() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(ALL)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_logits_have_the_size_of_the_image(name: str, channels: int) -> None:
    model = build(name, channels=channels, classes=3).eval()
    for size in ((32, 32), (33, 47), (50, 35), (80, 65)):
        with torch.no_grad():
            logits = model(torch.randn(1, channels, *size))
        assert logits.shape == (1, 3, *size)
        assert logits.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_networks_train_on_small_images(name: str) -> None:
    model = build(name)
    loss = model(torch.randn(2, 3, 35, 32)).square().mean()
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_has_a_gradient(name: str) -> None:
    model = build(name)
    target = torch.randint(0, 2, (2, 64, 64))
    nn.functional.cross_entropy(model(torch.randn(2, 3, 64, 64)), target).backward()
    without = [
        key
        for key, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    if name in ("basic_unet", "attention_unet") or name.startswith(("unext", "unet_plus")):
        # The gradient of biases before a norm that subtracts the mean is zero up to rounding.
        # The published networks have them, and only biases are exempt.
        without = [key for key in without if not key.endswith("bias")]
    assert without == []


@pytest.mark.parametrize("name", ALL)
def test_logits_of_an_image_do_not_depend_on_its_batch(name: str) -> None:
    # Use double precision because the order of summation may differ between batch sizes.
    model = build(name).eval().double()
    images = torch.randn(3, 3, 48, 64, dtype=torch.float64)
    with torch.no_grad():
        batched = model(images)
        alone = torch.cat([model(image[None]) for image in images])
        changed = model(torch.cat((images[:1], 100 * images[1:])))
    torch.testing.assert_close(batched, alone, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(batched[:1], changed[:1], rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", SEGNETRS)
def test_half_precision_logits_are_finite_and_close_to_full_precision(name: str) -> None:
    model = build(name).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        full = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(images)
    assert half.isfinite().all()
    assert (half.float() - full).abs().mean() < 0.1 * full.abs().mean() + 0.02


@pytest.mark.parametrize(
    ("name", "parameters", "gmac"),
    [
        ("segnetr", 12_815_938, 9.994),
        ("segnetr_s", 3_734_530, 2.600),
        ("unet", 31_031_810, 36.881),
        ("unext", 1_471_921 + 17, 0.431),
    ],
)
def test_parameters_and_macs_match_the_documentation(
    name: str, parameters: int, gmac: float
) -> None:
    # The published UNeXt has one class. The second adds 17 parameters to its head.
    model = build(name, side=224, full=True)
    assert count_parameters(model) == parameters
    assert count_macs(model, (1, 3, 224, 224)) / 1e9 == pytest.approx(gmac, abs=6e-4)


@pytest.mark.parametrize(
    ("config", "published", "ours"),
    [
        (SegNetrConfig(width=64), 12.26, 12.22),
        (SegNetrConfig(width=32), 3.60, 3.56),
        (SegNetrConfig(windows=(2, 2, 2, 2)), 54.34, 54.15),
        (SegNetrConfig(windows=(4, 4, 4, 2)), 14.32, 14.27),
    ],
)
def test_parameter_counts_match_the_published_table(
    config: SegNetrConfig, published: float, ours: float
) -> None:
    model = build_model(config, in_channels=3, num_classes=2, image_size=(224, 224))
    count = count_parameters(model) / 2**20
    assert round(count, 2) == ours
    assert count == pytest.approx(published, rel=0.013)


@pytest.mark.parametrize("name", ["segnetr_any", "segnetr_any_s"])
def test_macs_of_position_mixing_are_proportional_to_the_pixels(name: str) -> None:
    model = build(name)
    small, large = (count_macs(model, (1, 3, side, side)) for side in (224, 448))
    assert large / small == pytest.approx(4, rel=0.01)


def test_counting_macs_does_not_change_the_network() -> None:
    model = build("segnetr_s").train()
    count_macs(model, (1, 3, 64, 64))
    assert model.training
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())


@pytest.mark.parametrize("skip", ["concat", "add"])
def test_concat_and_add_skips_have_gradients_for_all_parameters(skip: str) -> None:
    config = TypeAdapter(SegNetrConfig).validate_python({"width": 8, "skip": skip})
    model = build_model(config, in_channels=3, num_classes=2, image_size=(64, 64))
    model(torch.randn(2, 3, 64, 48)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("architecture", "features"),
    [("basic_unet", (8, 16)), ("attention_unet", (8,)), ("swin_unetr", (10,))],
)
def test_wrong_widths_give_a_one_line_error(architecture: str, features: tuple[int, ...]) -> None:
    config = TypeAdapter(MonaiConfig).validate_python(
        {"architecture": architecture, "features": features}
    )
    with pytest.raises(UsageError, match=r"model\.features") as caught:
        build_model(config, in_channels=3, num_classes=2, image_size=(64, 64))
    assert "\n" not in str(caught.value)

"""Test the whole network: any image size, compilation, export, skips and padding."""

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from segnetr.config.schema.segmentation import SegNetrConfig
from segnetr.models.build import build_model
from segnetr.models.segnetr.segmentation import SegmentationModel


def build(mixing: str = "window", *, side: int = 48, **fields: object) -> SegmentationModel:
    torch.manual_seed(0)
    config = TypeAdapter(SegNetrConfig).validate_python({"width": 8, "mixing": mixing, **fields})
    return build_model(config, in_channels=3, num_classes=2, image_size=(side, side))


class Doubling(nn.Module):
    """A fake network that rejects sides that are no multiple of 16 and doubles the values."""

    def forward(self, image: Tensor) -> Tensor:
        assert image.shape[2] % 16 == image.shape[3] % 16 == 0
        assert min(image.shape[2:]) >= 64
        return 2 * image


@pytest.mark.parametrize("size", [(64, 64), (65, 100), (10, 70)])
def test_internal_padding_is_cropped(size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size)
    framed = SegmentationModel(Doubling(), multiple=16, least=64)
    assert torch.equal(framed(image), 2 * image)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mixing", ["window", pytest.param("position", marks=pytest.mark.exhaustive)]
)
def test_network_compiles_to_one_graph(mixing: str) -> None:
    model = build(mixing).eval()
    image = torch.randn(2, 3, 45, 50)
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)(image)
    usual = model(image).detach()
    assert (compiled - usual).abs().max() < 1e-5 * usual.abs().max()


@pytest.mark.exhaustive
def test_training_step_compiles_to_one_graph() -> None:
    model, plain = build().double(), build().double()
    image = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    torch.compile(model, backend="aot_eager", fullgraph=True)(image).square().mean().backward()
    plain(image).square().mean().backward()
    for (name, left), right in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-5, atol=1e-9, msg=name)
    for (name, left), right in zip(model.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(left, right, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("mixing", ["window", "position"])
def test_network_can_be_exported(mixing: str) -> None:
    model = build(mixing).eval()
    image = torch.randn(1, 3, 48, 48)
    program = torch.export.export(model, (image,))
    with torch.no_grad():
        exported = program.module()(image)
    usual = model(image).detach()
    assert (exported - usual).abs().max() < 1e-5 * usual.abs().max()


def test_window_mixing_has_parameters_for_the_native_size() -> None:
    own, other = build(side=48), build(side=96, native_size=48)
    shapes = [[p.shape for p in model.parameters()] for model in (own, other)]
    assert shapes[0] == shapes[1]
    with torch.no_grad():
        assert other.eval()(torch.randn(1, 3, 96, 96)).isfinite().all()


def test_position_mixing_has_the_same_parameters_for_every_size() -> None:
    small, large = build("position", side=48), build("position", side=224)
    large.load_state_dict(small.state_dict())


def test_wide_image_is_not_transposed() -> None:
    model = build("position").double().eval()
    image = torch.randn(1, 3, 32, 64, dtype=torch.float64)
    with torch.no_grad():
        wide, high = model(image), model(image.mT.contiguous())
    assert wide.shape == (1, 2, 32, 64)
    assert high.shape == (1, 2, 64, 32)


def test_logits_do_not_depend_on_the_memory_layout_of_the_image() -> None:
    model = build().double().eval()
    image = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            model(image.contiguous(memory_format=torch.channels_last)), model(image)
        )


def test_prediction_without_gradient_equals_prediction_with_it() -> None:
    model = build().eval()
    image = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        recomputed = model(image)
    usual = model(image).detach()
    assert (recomputed - usual).abs().max() < 1e-5 * usual.abs().max()

"""Test that a linear layer along the channels returns the same result on every path."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_backbones.kernels import dispatch
from hybrid_backbones.kernels.onednn import has_onednn
from segnetr.models.kernels.pointwise_conv import pointwise_conv

LAYERS = [nn.Linear(32, 64), nn.Linear(32, 64, bias=False), nn.Conv2d(32, 64, 1)]


@pytest.fixture
def x() -> Tensor:
    """Return maps with enough multiply-adds for the compiled product."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 32, 64, 40, generator=generator)


@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "without bias", "convolution"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_prediction_equals_rows_times_matrix(x, layer, layout) -> None:
    """Compare the result without gradient with the matrix product over the channels."""
    with torch.no_grad():
        expected = F.linear(x.permute(0, 2, 3, 1), layer.weight.flatten(1), layer.bias)
        found = pointwise_conv(layer, x.contiguous(memory_format=layout))
    torch.testing.assert_close(found, expected.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "without bias", "convolution"])
def test_compiled_function_has_the_same_maps_and_gradients(x, layer, monkeypatch) -> None:
    """Compare oneDNN's product, used when compiled, with the convolution and its gradients."""
    decisions = []

    def ask(maps: Tensor, weight: Tensor) -> bool:
        decisions.append(takes_products(maps, weight))
        return decisions[-1]

    takes_products = dispatch.takes_products
    monkeypatch.setattr(dispatch, "takes_products", ask)
    compiled = torch.compile(pointwise_conv, dynamic=False, backend="aot_eager")
    results = []
    for function in (pointwise_conv, compiled):
        maps = x.clone().requires_grad_()
        layer.zero_grad()
        result = function(layer, maps)
        result.square().sum().backward()
        results.append([result.detach(), maps.grad, *(p.grad for p in layer.parameters())])
    assert decisions[0] is False
    assert (True in decisions) == has_onednn()
    for eager, traced in zip(*results, strict=True):
        torch.testing.assert_close(traced, eager, rtol=1e-4, atol=1e-3)

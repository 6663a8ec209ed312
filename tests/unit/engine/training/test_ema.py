"""Test the exponential moving average of weights."""

import pytest
import torch
from torch import nn

from segnetr.engine.training.ema import ModelEMA


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def fill(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(value)


def test_decay_increases_from_a_tenth_to_its_limit():
    """Check decays 1/10, 2/11, 3/12, then the limit 0.3, for an average of 0 and weights of 1."""
    model = make_model()
    ema = ModelEMA(model, decay=0.3)
    fill(ema.model, 0.0)
    fill(model, 1.0)
    averages = []
    for updates in range(5):
        ema.update(model, updates=updates)
        averages.append(ema.model[0].weight.mean().item())
    # 1 - 1/10, 1 - 1/55, 1 - 1/220, 1 - 3/2200, 1 - 9/22000
    expected = [0.9, 0.9818182, 0.9954545, 0.9986364, 0.9995909]
    assert averages == pytest.approx(expected, abs=1e-6)


def test_buffers_are_copied_without_averaging():
    model = make_model()
    average = ModelEMA(model, decay=0.99)
    model.train()(torch.randn(4, 1, 8, 8))
    average.update(model, updates=1000)
    for copied, buffer in zip(average.model.buffers(), model.buffers(), strict=True):
        assert torch.equal(copied, buffer)
        assert copied.data_ptr() != buffer.data_ptr()


def test_average_is_an_independent_copy_without_gradients():
    model = make_model().train()
    average = ModelEMA(model, decay=0.9)
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    fill(model, 3.0)
    assert average.model[0].weight.max() < 3

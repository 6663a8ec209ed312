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


def test_average_follows_with_a_decay_that_rises_to_its_highest():
    model = make_model()
    average = ModelEMA(model, decay=0.5)
    fill(average.model, 0.0)
    fill(model, 1.0)
    expected = 0.0
    for updates in range(20):
        decay = min(0.5, (1 + updates) / (10 + updates))
        expected = decay * expected + (1 - decay)
        average.update(model, updates=updates)
        assert average.model[0].weight.mean().item() == pytest.approx(expected, abs=1e-6)


def test_buffers_are_copied_as_they_are():
    model = make_model()
    average = ModelEMA(model, decay=0.99)
    model.train()(torch.randn(4, 1, 8, 8))
    average.update(model, updates=1000)
    for kept, buffer in zip(average.model.buffers(), model.buffers(), strict=True):
        assert torch.equal(kept, buffer)
        assert kept.data_ptr() != buffer.data_ptr()


def test_average_is_a_copy_that_is_not_trained():
    model = make_model().train()
    average = ModelEMA(model, decay=0.9)
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    fill(model, 3.0)
    assert average.model[0].weight.max() < 3

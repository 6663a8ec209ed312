"""Recomputing changes what is kept, not what comes out."""

import copy

import pytest
import torch
from torch import nn

from segnetr.models.kernels import recomputation
from segnetr.models.kernels.recomputation import recompute


@pytest.fixture(autouse=True)
def _every_map_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputation, "LARGE_BYTES", 0)


def test_gradients_and_running_moments_are_those_of_one_pass() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 2, 1))
    frugal = copy.deepcopy(plain)
    norm = frugal[1]
    assert isinstance(norm, nn.BatchNorm2d)
    x = torch.randn(2, 3, 5, 5)
    for _ in range(2):
        plain(x).square().sum().backward()
        recompute(frugal, x, norms=(norm,)).square().sum().backward()
    for left, right in zip(frugal.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad)
    for left, right in zip(frugal.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(left, right)
    assert norm.momentum == 0.1
    assert norm.num_batches_tracked == 2


def test_only_the_input_is_kept_of_a_large_map(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1, 3, 8, 8)
    layers = nn.Sequential(nn.Conv2d(3, 16, 1), nn.SiLU(), nn.Conv2d(16, 2, 1))
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
    ):
        recompute(layers, x)
        frugal, _ = sum(kept), kept.clear()
        layers(x)
        usual, _ = sum(kept), kept.clear()
        monkeypatch.setattr(recomputation, "LARGE_BYTES", x.numel() * 4 + 1)
        recompute(layers, x)
    assert frugal < usual / 4
    assert sum(kept) == usual

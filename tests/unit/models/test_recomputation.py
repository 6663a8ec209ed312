"""Test that recomputation changes memory use but not results."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from hybrid_backbones import kernels
from segnetr.models.kernels.recomputation import recompute_large_maps


@pytest.fixture(autouse=True)
def _every_map_is_large() -> Iterator[None]:
    """Recompute maps of any size."""
    with kernels.configure(large_map_bytes=0):
        yield


def test_gradients_and_running_statistics_equal_those_of_one_pass() -> None:
    """Check that the second call of a function does not update running statistics."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 2, 1))
    recomputing = copy.deepcopy(plain)
    norm = recomputing[1]
    assert isinstance(norm, nn.BatchNorm2d)
    x = torch.randn(2, 3, 5, 5)
    for _ in range(2):
        plain(x).square().sum().backward()
        recompute_large_maps(recomputing, x, norms=(norm,)).square().sum().backward()
    for left, right in zip(recomputing.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad)
    for left, right in zip(recomputing.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(left, right)
    assert norm.momentum == 0.1
    assert norm.num_batches_tracked == 2


def test_only_the_input_of_a_large_map_is_saved() -> None:
    """Check that autograd saves only the input, and everything for small maps and plain()."""
    x = torch.randn(1, 3, 8, 8)
    layers = nn.Sequential(nn.Conv2d(3, 16, 1), nn.SiLU(), nn.Conv2d(16, 2, 1))
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor.numel()) or tensor, lambda tensor: tensor
    ):
        recompute_large_maps(layers, x)
        recomputed, _ = sum(saved), saved.clear()
        layers(x)
        usual, _ = sum(saved), saved.clear()
        with kernels.configure(large_map_bytes=x.numel() * 4 + 1):
            recompute_large_maps(layers, x)
        small, _ = sum(saved), saved.clear()
        with kernels.plain():
            recompute_large_maps(layers, x)
    assert recomputed < usual / 4
    assert small == usual
    assert sum(saved) == usual

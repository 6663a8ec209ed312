"""Test that the CPU kernels of MBConv return the results of the plain modules."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from hybrid_backbones import kernels
from segnetr.models.kernels.channel_covariance import channel_covariance
from segnetr.models.kernels.mbconv_dispatch import choose_mbconv_kernel
from segnetr.models.segnetr.mbconv import MBConv

CASES = [(8, 4, 0.25), (8, 4, 0.0), (6, 3, 0.5), (32, 2, 0.25)]


@pytest.fixture(autouse=True)
def _every_map_is_large() -> Iterator[None]:
    """Use the training kernel for maps of any size."""
    with kernels.configure(large_map_bytes=0):
        yield


def make_block(
    channels: int, expansion: int, squeeze: float, *, dtype: torch.dtype = torch.float64
) -> MBConv:
    torch.manual_seed(0)
    block = MBConv(channels, expansion=expansion, squeeze_ratio=squeeze).to(dtype)
    for norm in block.norms:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return block


def train_step(block: MBConv, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = block(x)
    y.backward(gradient)
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tile", [2**10, 2**30])
def test_training_kernel_equals_plain_training(case: tuple[int, int, float], tile: int) -> None:
    """Compare values, all gradients and running statistics with those of the plain modules."""
    block = make_block(*case)
    plain = copy.deepcopy(block)
    x = torch.randn(3, case[0], 9, 12, dtype=torch.float64) * 2 + 3
    gradient = torch.randn_like(x)
    assert choose_mbconv_kernel(x, training=True) == "train"
    with kernels.configure(tile_bytes=tile):
        results = train_step(block, x, gradient)
    with kernels.plain():
        assert choose_mbconv_kernel(x, training=True) is None
        expected = train_step(plain, x, gradient)
    for one, other in zip(results, expected, strict=True):
        torch.testing.assert_close(one, other)
    for (name, left), right in zip(block.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, msg=name)
    for (name, left), right in zip(block.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(left, right, msg=name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tile", [2**10, 2**14, 2**30])
def test_inference_kernel_equals_plain_inference(case: tuple[int, int, float], tile: int) -> None:
    """Compare the maps of the folded and tiled kernel with those of the plain modules."""
    block = make_block(*case, dtype=torch.float32).eval()
    x = torch.randn(3, case[0], 9, 12)
    with torch.no_grad():
        assert choose_mbconv_kernel(x, training=False) == "infer"
        with kernels.configure(tile_bytes=tile):
            found = block(x)
        with kernels.plain():
            assert choose_mbconv_kernel(x, training=False) is None
            expected = block(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_folded_statistics_are_accurate_for_values_far_from_zero() -> None:
    """Check that statistics from the covariance are accurate even if the mean is large."""
    block = make_block(8, 4, 0.25, dtype=torch.float32)
    plain = copy.deepcopy(block).double()
    x = torch.randn(2, 8, 16, 16) + 100
    with kernels.plain():
        exact = plain(x.double())
    torch.testing.assert_close(block(x).double(), exact, rtol=1e-2, atol=1e-2)


def test_channel_covariance_returns_mean_and_covariance() -> None:
    """Compare the result with that of torch.cov over images and pixels."""
    x = torch.randn(2, 5, 4, 6, dtype=torch.float64) + 4
    mean, covariance = channel_covariance(x)
    rows = x.movedim(1, 0).flatten(1)
    torch.testing.assert_close(mean, rows.mean(1))
    torch.testing.assert_close(covariance, torch.cov(rows, correction=0))


def test_gradient_of_channel_covariance_is_correct() -> None:
    """Compare the hand-written gradient with finite differences."""
    x = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(channel_covariance, (x,))


def test_training_kernel_is_used_only_for_supported_inputs() -> None:
    """Check few pixels, half precision, autocast, no gradient, evaluation and small maps."""
    x = torch.randn(2, 8, 8, 8, dtype=torch.float64)

    def fits(maps: Tensor, *, training: bool = True) -> bool:
        return choose_mbconv_kernel(maps, training=training) == "train"

    assert fits(x)
    assert not fits(x[:1, :, :2, :2])
    assert not fits(x.bfloat16())
    with torch.no_grad():
        assert not fits(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not fits(x)
    assert not fits(x, training=False)
    with kernels.configure(large_map_bytes=x.numel() * 8):
        assert fits(x)
    with kernels.configure(large_map_bytes=x.numel() * 8 + 1):
        assert not fits(x)

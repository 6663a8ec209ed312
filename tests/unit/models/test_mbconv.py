"""The frugal ways through MBConv give what the plain modules give."""

import copy

import pytest
import torch
from torch import Tensor, nn

from segnetr.models.kernels import mbconv_infer_cpu as folded
from segnetr.models.kernels import mbconv_train_cpu as lean
from segnetr.models.kernels import recomputation
from segnetr.models.kernels.channel_covariance import channel_covariance
from segnetr.models.segnetr.mbconv import MBConv

CASES = [(8, 4, 0.25), (8, 4, 0.0), (6, 3, 0.5), (32, 2, 0.25)]


@pytest.fixture(autouse=True)
def _every_map_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputation, "LARGE_BYTES", 0)


def make(
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


def force_plain(block: MBConv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block, "_uses_train_kernel", lambda _: False)
    monkeypatch.setattr(block, "_is_folded", lambda _: False)


def train_step(block: MBConv, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = block(x)
    y.backward(gradient)
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("piece", [2**10, 2**30])
def test_lean_training_equals_plain_training(
    case: tuple[int, int, float], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lean, "_PIECE_BYTES", piece)
    frugal = make(*case)
    plain = copy.deepcopy(frugal)
    force_plain(plain, monkeypatch)
    x = torch.randn(3, case[0], 9, 12, dtype=torch.float64) * 2 + 3
    gradient = torch.randn_like(x)
    assert frugal._uses_train_kernel(x)
    for result, expected in zip(
        train_step(frugal, x, gradient), train_step(plain, x, gradient), strict=True
    ):
        torch.testing.assert_close(result, expected)
    for (name, left), right in zip(frugal.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, msg=name)
    for (name, left), right in zip(frugal.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(left, right, msg=name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("piece", [2**10, 2**14, 2**30])
def test_folded_prediction_equals_plain_prediction(
    case: tuple[int, int, float], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folded, "_PIECE_BYTES", piece)
    frugal = make(*case, dtype=torch.float32).eval()
    plain = copy.deepcopy(frugal)
    force_plain(plain, monkeypatch)
    x = torch.randn(3, case[0], 9, 12)
    with torch.no_grad():
        assert frugal._is_folded(x)
        torch.testing.assert_close(frugal(x), plain(x), rtol=1e-5, atol=1e-5)


def test_values_far_from_zero_do_not_spoil_the_folded_statistics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frugal = make(8, 4, 0.25, dtype=torch.float32)
    plain = copy.deepcopy(frugal)
    force_plain(plain, monkeypatch)
    x = torch.randn(2, 8, 16, 16) + 100
    frugal(x)
    exact = plain.double()(x.double())
    torch.testing.assert_close(frugal(x).double(), exact, rtol=1e-2, atol=1e-2)


def test_moments_are_mean_and_covariance() -> None:
    x = torch.randn(2, 5, 4, 6, dtype=torch.float64) + 4
    mean, covariance = channel_covariance(x)
    rows = x.movedim(1, 0).flatten(1)
    torch.testing.assert_close(mean, rows.mean(1))
    torch.testing.assert_close(covariance, torch.cov(rows, correction=0))


def test_gradient_of_the_moments_is_right() -> None:
    x = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(channel_covariance, (x,))


def test_lean_training_is_left_to_the_plain_modules_where_it_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = make(8, 4, 0.25)
    x = torch.randn(2, 8, 8, 8, dtype=torch.float64)
    assert block._uses_train_kernel(x)
    assert not block._uses_train_kernel(x[:1, :, :2, :2])
    assert not block._uses_train_kernel(x.bfloat16())
    with torch.no_grad():
        assert not block._uses_train_kernel(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not block._uses_train_kernel(x)
    assert not block.eval()._uses_train_kernel(x)
    block.train()
    monkeypatch.setattr(recomputation, "LARGE_BYTES", x.numel() * 8)
    assert block._uses_train_kernel(x)
    monkeypatch.setattr(recomputation, "LARGE_BYTES", x.numel() * 8 + 1)
    assert not block._uses_train_kernel(x)

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segnetr.errors import UsageError
from segnetr.losses import LOSSES, build_loss

every_loss = pytest.mark.parametrize("name", LOSSES)
shapes = st.tuples(st.integers(1, 3), st.integers(2, 4), st.integers(2, 9), st.integers(2, 9))


def draw_mask(shape: tuple[int, int, int, int], seed: int) -> Tensor:
    count, classes, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, classes, (count, 1, height, width), generator=generator)


def draw_logits(shape: tuple[int, int, int, int], seed: int, scale: float) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1)) * scale


def perfect_logits(mask: Tensor, classes: int) -> Tensor:
    return torch.zeros(len(mask), classes, *mask.shape[2:]).scatter_(1, mask, 1.0) * 60 - 30


@every_loss
@settings(max_examples=25, deadline=None)
@given(shape=shapes, seed=st.integers(0, 999), empty=st.booleans())
def test_loss_of_perfect_logits_is_zero_even_for_empty_masks(name, shape, seed, empty):
    mask = torch.zeros_like(draw_mask(shape, seed)) if empty else draw_mask(shape, seed)
    loss = build_loss(name, num_classes=shape[1])(perfect_logits(mask, shape[1]), mask)
    assert 0 <= loss.item() < 1e-3


@every_loss
@settings(max_examples=25, deadline=None)
@given(shape=shapes, seed=st.integers(0, 999), scale=st.sampled_from([0.0, 1.0, 50.0, 1e4]))
def test_loss_is_finite_nonnegative_and_float32_under_autocast(name, shape, seed, scale):
    mask = draw_mask(shape, seed)
    logits = draw_logits(shape, seed, scale).bfloat16()
    loss = build_loss(name, num_classes=shape[1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, mask)
    assert value.dtype == torch.float32
    assert math.isfinite(value.item())
    assert value.item() >= 0
    assert value.item() == loss(logits.float(), mask).item()


@every_loss
@settings(max_examples=15, deadline=None)
@given(shape=shapes, seed=st.integers(0, 999))
def test_gradient_reaches_every_class_and_a_step_lowers_the_loss(name, shape, seed):
    mask = draw_mask(shape, seed)
    mask[..., 0, 0] = 1  # a foreground pixel, so that the overlap is never trivially perfect
    logits = draw_logits(shape, seed, 1.0).requires_grad_()
    loss = build_loss(name, num_classes=shape[1])
    value = loss(logits, mask)
    value.backward()
    gradient = logits.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert (gradient.abs().sum(dim=(0, 2, 3)) > 0).all()
    assert loss((logits - 1e-2 * gradient / gradient.norm()).detach(), mask) < value


@every_loss
def test_batch_loss_is_the_mean_over_its_images(name):
    shape = (4, 3, 8, 8)
    logits, mask = draw_logits(shape, 3, 2.0), draw_mask(shape, 3)
    loss = build_loss(name, num_classes=3)
    alone = [loss(logits[i : i + 1], mask[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(loss(logits, mask), torch.stack(alone).mean())


def test_ce_equals_torch_cross_entropy():
    shape = (2, 3, 8, 8)
    logits, mask = draw_logits(shape, 1, 3.0), draw_mask(shape, 1)
    expected = torch.nn.functional.cross_entropy(logits, mask[:, 0])
    torch.testing.assert_close(build_loss("ce", num_classes=3)(logits, mask), expected)


def test_dice_equals_its_formula_without_background():
    shape = (1, 2, 8, 8)
    logits, mask = draw_logits(shape, 1, 3.0), draw_mask(shape, 1)
    found, ground_truth = logits.softmax(dim=1)[:, 1], (mask[:, 0] == 1).float()
    expected = 1 - (2 * (found * ground_truth).sum() + 1e-5) / (
        found.sum() + ground_truth.sum() + 1e-5
    )
    torch.testing.assert_close(build_loss("dice", num_classes=2)(logits, mask), expected)


def test_dice_ce_is_the_sum_of_dice_and_ce():
    shape = (2, 3, 8, 8)
    logits, mask = draw_logits(shape, 1, 3.0), draw_mask(shape, 1)
    parts = [build_loss(name, num_classes=3)(logits, mask) for name in ("dice", "ce")]
    torch.testing.assert_close(build_loss("dice_ce", num_classes=3)(logits, mask), sum(parts))


def test_tversky_penalizes_a_false_negative_more_than_a_false_positive():
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    mask[..., :4] = 1
    missing, excess = mask.clone(), mask.clone()
    missing[..., 3] = 0
    excess[..., 4] = 1
    loss = build_loss("tversky", num_classes=2)
    assert loss(perfect_logits(missing, 2), mask) > loss(perfect_logits(excess, 2), mask)


def test_focal_loss_is_invariant_to_a_shift_of_all_logits():
    shape = (2, 3, 8, 8)
    logits, mask = draw_logits(shape, 1, 3.0), draw_mask(shape, 1)
    loss = build_loss("dice_focal", num_classes=3)
    torch.testing.assert_close(loss(logits + 7, mask), loss(logits, mask))


def test_error_for_an_unknown_loss_lists_the_choices():
    with pytest.raises(UsageError, match=r"'dise'.*dice_ce"):
        build_loss("dise", num_classes=2)


def test_single_class_is_rejected():
    with pytest.raises(UsageError, match="background counts"):
        build_loss("ce", num_classes=1)


@pytest.mark.parametrize("mask_shape", [(2, 8, 8), (2, 1, 4, 4), (1, 1, 8, 8), (2, 3, 8, 8)])
def test_mask_of_another_shape_is_rejected(mask_shape):
    with pytest.raises(ValueError, match="do not fit"):
        build_loss("ce", num_classes=3)(
            torch.zeros(2, 3, 8, 8), torch.zeros(mask_shape, dtype=torch.int64)
        )

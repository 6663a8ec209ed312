"""Test that weights from the map of means equal the literal computation with windows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segnetr.models.segnetr.interaction import (
    GlobalInteraction,
    InteractionFusion,
    LocalInteraction,
    MixingKind,
    build_mixing,
)
from segnetr.models.segnetr.mixing import NoMixing, PositionMixing, WindowMixing
from segnetr.models.segnetr.windows import (
    merge_displaced,
    merge_windows,
    partition_displaced,
    partition_windows,
)

MIXINGS: tuple[MixingKind, ...] = ("window", "position")
quick = settings(max_examples=25, deadline=None)


def literal_local(branch: LocalInteraction, x: Tensor) -> Tensor:
    """Compute LP, mean, FFN, softmax, weighting and LR as in the paper."""
    grid = (x.shape[2] // branch.window, x.shape[3] // branch.window)
    windows = partition_windows(x, branch.window)
    weights = branch.mixing(windows.mean(-1), grid)
    return merge_windows(windows * weights[..., None], grid, branch.window)


def literal_global(branch: GlobalInteraction, x: Tensor) -> Tensor:
    """Compute GP, mean, FFN, softmax, weighting and GR as in the paper."""
    double = 2 * branch.window
    grid = (x.shape[2] // double, x.shape[3] // double)
    windows = partition_displaced(x, branch.window)
    weights = branch.mixing(windows.mean(-1), grid)
    return merge_displaced(windows * weights[..., None], grid, branch.window)


@quick
@given(
    st.sampled_from(MIXINGS), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers()
)
def test_both_branches_equal_the_literal_computation(
    mixing: MixingKind, rows: int, columns: int, window: int, seed: int
) -> None:
    torch.manual_seed(seed % 2**31)
    size = (2 * rows * window, 2 * columns * window)
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    local = LocalInteraction(window, mixing=mixing, ratio=1.0, size=size).double()
    torch.testing.assert_close(local(x), literal_local(local, x))
    wide = GlobalInteraction(window, mixing=mixing, ratio=1.0, size=size).double()
    torch.testing.assert_close(wide(x), literal_global(wide, x))


def test_fusion_is_the_normalized_weighted_sum_of_both_branches() -> None:
    fusion = InteractionFusion(5, 2, mixing="window", ratio=1.0, size=(8, 12)).double()
    with torch.no_grad():
        fusion.local_weight.fill_(0.7)
        fusion.global_weight.fill_(-1.3)
    x = torch.randn(2, 5, 8, 12, dtype=torch.float64)
    expected = fusion.norm(0.7 * fusion.local(x) - 1.3 * fusion.global_(x))
    torch.testing.assert_close(fusion(x), expected)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("size", [(3, 5), (7, 16), (9, 9)])
def test_maps_that_are_no_multiple_of_the_window_keep_their_size(
    mixing: MixingKind, size: tuple[int, int]
) -> None:
    fusion = InteractionFusion(4, 4, mixing=mixing, ratio=1.0, size=(16, 16))
    fused = fusion(torch.randn(2, 4, *size))
    assert fused.shape == (2, 4, *size)
    assert fused.isfinite().all()


@quick
@given(st.sampled_from(MIXINGS), st.integers(1, 4), st.integers(1, 4))
def test_attention_weights_have_mean_one_along_the_mixed_axis(
    mixing: MixingKind, rows: int, columns: int
) -> None:
    means = torch.randn(3, rows * columns, 4)
    layer = PositionMixing(4, ratio=2.0) if mixing == "position" else WindowMixing((rows, columns))
    weights = layer(means, (rows, columns))
    axis = -1 if mixing == "position" else 1
    torch.testing.assert_close(weights.mean(axis), torch.ones_like(weights.mean(axis)))
    assert (weights > 0).all()


def test_only_window_mixing_exchanges_information_between_windows() -> None:
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    changed = x.clone()
    changed[..., 4:, 4:] += torch.randn(4, 4)
    for mixing, same in (("window", False), ("position", True)):
        branch = LocalInteraction(4, mixing=mixing, ratio=1.0, size=(8, 8)).double()
        before, after = (
            branch.attention_weights(x)[..., :4, :4],
            branch.attention_weights(changed)[..., :4, :4],
        )
        assert torch.equal(before, after) == same


def test_global_branch_depends_on_pixels_outside_its_double_window() -> None:
    branch = GlobalInteraction(1, mixing="position", ratio=1.0, size=(6, 6)).double()
    x = torch.randn(1, 1, 6, 6, dtype=torch.float64)
    changed = x.clone()
    changed[..., 2:4, 2:4] += torch.randn(2, 2)
    outside = torch.ones(6, 6, dtype=torch.bool)
    outside[2:4, 2:4] = False
    before, after = branch.attention_weights(x)[0, 0], branch.attention_weights(changed)[0, 0]
    assert (before != after)[outside].any()


def test_mixing_weights_are_resampled_for_another_grid() -> None:
    layer = WindowMixing((4, 4)).double()
    flat = torch.full((3, 16), 0.5, dtype=torch.float64)
    assert torch.equal(layer._on((4, 4), flat), flat)
    torch.testing.assert_close(layer._on((5, 7), flat), flat[:, :1].expand(3, 35))
    ramp = torch.arange(4, dtype=torch.float64).repeat(4)
    wide = layer._on((4, 8), ramp).reshape(4, 8)
    assert (wide.diff(dim=1) >= 0).all()
    torch.testing.assert_close(wide[:, 1:-1], torch.arange(6.0).double().expand(4, 6) / 2 + 0.25)


def test_mixing_weights_keep_their_relative_position_on_another_grid() -> None:
    layer = WindowMixing((4, 4)).double()
    with torch.no_grad():
        layer.restore.weight.zero_()
        layer.restore.bias.zero_()
        layer.restore.bias[5] = 4.0
    weights = layer(torch.randn(1, 64, 2, dtype=torch.float64), (8, 8))[0, :, 0].reshape(8, 8)
    assert (weights[2:4, 2:4] > 4 * weights[5:, 5:].max()).all()


@pytest.mark.parametrize(
    ("window", "mixing", "size"), [(1, "position", (8, 8)), (8, "window", (8, 8))]
)
def test_mixing_over_a_single_entry_has_no_parameters(
    window: int, mixing: MixingKind, size: tuple[int, int]
) -> None:
    layer = build_mixing(window, mixing=mixing, ratio=1.0, size=size)
    assert isinstance(layer, NoMixing)
    assert torch.equal(layer(torch.randn(2, 3, 1), (1, 3)), torch.ones(2, 3, 1))

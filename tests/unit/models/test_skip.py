"""Test that patch merging is invertible and that the retention skip is a slice."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segnetr.models.segnetr.skip import (
    FusedUpsampling,
    InformationRetentionSkip,
    PatchMerging,
    SkipKind,
    merge_patches,
    reverse_patches,
)

sides = st.integers(1, 9)
quick = settings(max_examples=60, deadline=None)


@quick
@given(st.integers(1, 3), st.integers(1, 6), sides, sides)
def test_patch_reverse_undoes_patch_merging(images: int, channels: int, h: int, w: int) -> None:
    x = torch.randn(images, channels, 2 * h, 2 * w)
    merged = merge_patches(x)
    assert merged.shape == (images, 4 * channels, h, w)
    assert torch.equal(reverse_patches(merged), x)
    assert torch.equal(merge_patches(reverse_patches(merged)), merged)


@quick
@given(st.integers(1, 3), st.integers(1, 4), sides, sides)
def test_slicing_merged_channels_equals_slicing_channels_before_merging(
    images: int, pairs: int, h: int, w: int
) -> None:
    x = torch.randn(images, 2 * pairs, 2 * h, 2 * w)
    assert torch.equal(reverse_patches(merge_patches(x)[:, ::2]), x[:, ::2])


def test_pixel_unshuffle_order_does_not_restore_every_second_channel() -> None:
    x = torch.randn(1, 4, 6, 6)
    other = nn.functional.pixel_shuffle(nn.functional.pixel_unshuffle(x, 2)[:, ::2], 2)
    assert not torch.equal(other, x[:, ::2])


def test_retention_skip_equals_merging_and_reverse() -> None:
    encoder_map, upsampled = torch.randn(2, 6, 8, 10), torch.randn(2, 5, 8, 10)
    skip = InformationRetentionSkip(6, 5)
    fused = skip(encoder_map, upsampled)
    assert fused.shape[1] == skip.out_channels
    assert torch.equal(fused[:, :5], upsampled)
    assert torch.equal(fused[:, 5:], reverse_patches(merge_patches(encoder_map)[:, ::2]))
    assert list(skip.parameters()) == []


@pytest.mark.parametrize("kind", ["irsc", "concat", "add"])
@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_fused_map_has_the_width_and_size_of_the_encoder_map(
    kind: SkipKind, size: tuple[int, int]
) -> None:
    fusion = FusedUpsampling(12, 6, kind=kind)
    fused = fusion(torch.randn(2, 12, 4, 4), torch.randn(2, 6, *size))
    assert fused.shape == (2, 6, *size)
    assert fusion.skip.out_channels == 6


@pytest.mark.parametrize("kind", ["irsc", "concat", "add"])
def test_fused_map_depends_on_both_maps(kind: SkipKind) -> None:
    fusion = FusedUpsampling(12, 6, kind=kind)
    coarse = torch.randn(1, 12, 4, 4, requires_grad=True)
    encoder_map = torch.randn(1, 6, 8, 8, requires_grad=True)
    fusion(coarse, encoder_map).square().sum().backward()
    assert coarse.grad is not None
    assert coarse.grad.abs().sum() > 0
    assert encoder_map.grad is not None
    kept = encoder_map.grad.abs().sum((0, 2, 3)) > 0
    assert kept.tolist() == ([True, False] * 3 if kind == "irsc" else [True] * 6)


def test_patch_merging_halves_the_sides() -> None:
    merging = PatchMerging(6, 10)
    x = torch.randn(2, 6, 8, 12)
    expected = merging.project(merging.norm(merge_patches(x).permute(0, 2, 3, 1)))
    torch.testing.assert_close(merging(x), expected.permute(0, 3, 1, 2))

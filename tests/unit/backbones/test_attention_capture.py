"""Captured attention is exactly that of the networks, with the right image positions."""

import pytest
import torch
import torch.nn.functional as F

from hybrid_backbones import capture_attention, create_model
from hybrid_backbones.layers.windows import merge_windows

# Small networks of each kind; the sizes are no multiples of windows, cells and strides.
KINDS = {
    "cmt_ti": ((70, 45), {"image_size": 64}),
    "cvt_13": ((70, 45), {"depths": (1, 1, 2)}),
    "moa_tiny": ((140, 75), {"depths": (1, 1, 1), "image_size": 112, "layout": "raster"}),
    "mobilevit_xxs": ((70, 45), {}),
    "swin_tiny": ((70, 45), {"depths": (2, 2, 2, 2)}),
    "vitae_tiny": ((70, 45), {"depths": (0, 0, 2)}),
    "vitae_base": ((70, 45), {"embed_dim": 96, "depth": 2, "num_heads": 3, "image_size": 64}),
    "vitaev2_s": ((70, 45), {"depths": (1, 1, 1, 1)}),
}


def build(name):
    size, overrides = KINDS[name]
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **overrides).eval()
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    return model, image


def observe(model, image):
    calls = []
    with torch.no_grad(), capture_attention(model, calls.append):
        output = model(image)
    return calls, output


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_captured_weights_are_those_of_the_network_and_logits_are_unchanged(name, monkeypatch):
    model, image = build(name)
    calls, output = observe(model, image)
    with torch.no_grad():
        assert torch.equal(output, model(image))
    results = []
    genuine = F.scaled_dot_product_attention

    def attend(q, k, v, **kwargs):
        results.append((v, genuine(q, k, v, **kwargs)))
        return results[-1][1]

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    with torch.no_grad():
        model(image)
    assert len(results) == len(calls) > 0
    for call, (values, result) in zip(calls, results, strict=True):
        weights = call.weights()
        images, groups, heads, places, keys = weights.shape
        assert call.query_positions.shape == (groups, places, 2)
        assert call.key_positions.shape == (groups, keys, 2)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        own = values.reshape(images, groups, heads, keys, -1)
        torch.testing.assert_close((weights @ own).reshape(result.shape), result)
        torch.testing.assert_close(call.weights(slice(2, 5)), weights[..., 2:5, :])


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_positions_are_inside_the_image_and_each_is_one_query(name):
    model, image = build(name)
    calls, _ = observe(model, image)
    height, width = image.shape[2:]
    maps = {info.module: info.stride for info in model.feature_info}
    for call in calls:
        strides = [stride for module, stride in maps.items() if call.name.startswith(f"{module}.")]
        stride = strides[-1] if strides else model.feature_info[-1].stride
        asked = call.query_positions.flatten(0, 1)
        asked = asked[asked.isfinite().all(1)]
        assert (asked >= 0).all()
        assert (asked[:, 0] < height + stride).all()
        assert (asked[:, 1] < width + stride).all()
        assert len(asked.unique(dim=0)) == len(asked)
        if not call.name.endswith("glb_attn"):
            rows, columns = -(-height // stride), -(-width // stride)
            # CvT as published rounds down; MobileViT stretches odd sides.
            assert rows * columns * 0.7 <= len(asked) <= (rows + 1) * (columns + 1)


def test_shifted_windows_have_the_positions_before_the_shift():
    model, image = build("swin_tiny")
    calls, _ = observe(model, image)
    shifted = calls[1]  # 18 x 12 places of stride 4 in windows of 7, shifted by 3
    assert shifted.name == "layers.0.blocks.1.attn"
    grid = merge_windows(shifted.query_positions[None], (3, 2), 7)[0]
    torch.testing.assert_close(grid[0, 0], torch.tensor([3.5 * 4, 3.5 * 4]))
    torch.testing.assert_close(grid[14, 8], torch.tensor([17.5 * 4, 11.5 * 4]))
    assert grid[15:18].isnan().all()  # padding
    torch.testing.assert_close(grid[18, 0], torch.tensor([0.5 * 4, 3.5 * 4]))  # wrapped around


def test_class_tokens_have_no_position():
    for name, stage in (("cvt_13", "stage2."), ("vitae_base", "cells.")):
        model, image = build(name)
        calls, _ = observe(model, image)
        for call in calls:
            expected = 1 if call.name.startswith(stage) else 0
            assert int(call.query_positions.isnan().any(-1).sum()) == expected
            assert int(call.key_positions.isnan().any(-1).sum()) == expected


def test_no_hook_remains_after_the_context():
    model, image = build("mobilevit_xxs")
    calls, _ = observe(model, image)
    count = len(calls)
    with torch.no_grad():
        model(image)
    assert len(calls) == count
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_encoder_inside_another_network_is_captured_with_its_full_names():
    model = create_model("mobilevit_xxs", features_only=True).eval()
    calls = []
    with torch.no_grad(), capture_attention(model, calls.append):
        model(torch.zeros(1, 3, 64, 64))
    assert calls[0].name == "backbone.stages.2.1.transformer.0.attn"
    assert calls[0].query_positions.max() == 60  # the last of 8 places of stride 8


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("mobile_former_26m", {}),
        ("moa_tiny", {"depths": (1, 1, 1), "image_size": 112, "layout": "official"}),
    ],
)
def test_attention_without_positions_is_skipped(name, overrides):
    model = create_model(name, num_classes=2, **overrides).eval()
    calls, _ = observe(model, torch.zeros(1, 3, 112, 112))
    assert not any("glb_attn" in call.name for call in calls)
    assert bool(calls) == name.startswith("moa")

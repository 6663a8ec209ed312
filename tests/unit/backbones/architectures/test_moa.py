"""MoA-Transformer: any image size, both layouts, gradients."""

import pytest
import torch

from hybrid_backbones import create_model, load_published
from hybrid_backbones.layers.windows import relative_position_index
from hybrid_backbones.layers.windows2d import (
    merge_windows2d,
    pad_to_multiple,
    padding_mask,
    partition_windows2d,
    window_position_index,
)

SMALL = {"embed_dim": 32, "depths": (1, 1, 1), "num_heads": (1, 2, 4), "reduction": 16}


def small(**fields):
    torch.manual_seed(0)
    return create_model("moa_tiny", **{**SMALL, **fields})


@pytest.mark.parametrize("layout", ["official", "raster"])
@pytest.mark.parametrize(("height", "width"), [(97, 131), (64, 96), (33, 47), (32, 300)])
@torch.inference_mode()
def test_pyramid_has_the_declared_shapes_at_any_size(layout, height, width):
    model = small(layout=layout, num_classes=0, in_channels=4).eval()
    maps = model.forward_features(torch.randn(2, 4, height, width))
    for feature, info in zip(maps, model.feature_info, strict=True):
        sides = (-(-height // info.stride), -(-width // info.stride))
        assert tuple(feature.shape) == (2, info.channels, *sides)
        assert feature.isfinite().all()


@pytest.mark.parametrize("layout", ["official", "raster"])
def test_gradients_reach_every_parameter_without_a_head(layout):
    model = small(layout=layout, num_classes=0).train()
    maps = model.forward_features(torch.randn(2, 3, 97, 131))
    sum(feature.square().sum() for feature in maps).backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


@torch.inference_mode()
def test_images_of_a_batch_are_independent():
    model = small().double().eval()
    images = torch.randn(3, 3, 97, 131, dtype=torch.float64)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]), rtol=1e-9, atol=1e-9)


@torch.inference_mode()
def test_small_maps_equal_maps_padded_to_a_window_and_masked():
    model = small().double().eval()
    block = model.layers[2].blocks[0]
    x = torch.randn(2, 5, 9, 128, dtype=torch.float64)
    index = window_position_index(14, 14)
    part = index.reshape(14, 14, 14, 14)[:5, :9, :5, :9].reshape(45, 45)
    padded = pad_to_multiple(x, (14, 14))
    mask = padding_mask(5, 9, sides=(14, 14), like=x)
    whole = block.attn(partition_windows2d(padded, (14, 14)), index, mask)
    expected = merge_windows2d(whole, (1, 1), (14, 14))[:, :5, :9]
    own = merge_windows2d(block.attn(partition_windows2d(x, (5, 9)), part, None), (1, 1), (5, 9))
    torch.testing.assert_close(own, expected)


@torch.inference_mode()
def test_raster_layout_differs_from_the_official_one_with_the_same_weights():
    official, raster = small().eval(), small(layout="raster").eval()
    raster.load_state_dict(official.state_dict())
    image = torch.randn(1, 3, 224, 224)
    assert not torch.allclose(official(image), raster(image), atol=1e-4)


@torch.inference_mode()
def test_raster_global_attention_is_constant_within_a_window():
    attention = small(layout="raster").double().eval().layers[0].glb_attn
    given = partition_windows2d(attention(torch.randn(1, 28, 28, 32).double()), (14, 14))
    torch.testing.assert_close(given, given[:, :, :1].expand_as(given))


def test_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="layout 'rows'"):
        small(layout="rows")


def test_weights_of_another_image_size_load_with_resized_tables():
    source, target = small(), small(image_size=448)
    load_published(target, source.state_dict())
    assert target.layers[0].glb_attn.relative_position_bias_table.shape == (225, 1)


def test_position_index_of_a_square_is_that_of_a_window():
    assert torch.equal(window_position_index(5, 5), relative_position_index(5))


def test_autocast_gives_finite_logits():
    model = small().eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(1, 3, 97, 131)).isfinite().all()


def test_checkpointing_gives_the_same_gradients():
    images = torch.randn(2, 3, 64, 96)
    gradients = []
    for checkpoint in (False, True):
        model = small(drop_path=0.0, global_drop_path=0.0).train()
        model.gradient_checkpointing = checkpoint
        model(images).square().sum().backward()
        gradients.append(model.patch_embed.proj.weight.grad)
    torch.testing.assert_close(*gradients)

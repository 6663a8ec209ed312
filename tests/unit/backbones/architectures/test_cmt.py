"""CMT at any size: what the golden records do not show."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from hybrid_backbones import create_model, load_published
from hybrid_backbones.architectures.cmt import CMTConfig
from hybrid_backbones.layers.position import resize_pair_table
from hybrid_backbones.weights import CheckpointError

TINY = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "stem_width": 8}


def tiny(**settings):
    torch.manual_seed(0)
    return create_model("cmt_ti", **{"num_classes": 5, **TINY, **settings})


def published_layout(model):
    """Return the model's own state dict the names of the official code."""
    letters, state = "abcd", {}
    for key, value in model.state_dict().items():
        first, second, *rest = key.split(".")
        if first == "stem":
            kind = "conv" if int(second) % 3 == 0 else "norm"
            name = ".".join([f"stem_{kind}{int(second) // 3 + 1}", *rest])
        elif first == "stages":
            name = ".".join([f"{rest[0]}_{letters[int(second)]}", *rest[1:]])
        elif first == "expand":
            name = ".".join([{"0": "_fc", "1": "_bn"}[second], *rest])
        else:
            name = key
        state[name] = value.clone()
    return state


@pytest.mark.parametrize("size", [(97, 131), (64, 96), (33, 47), (160, 160)])
@pytest.mark.parametrize("channels", [1, 4])
@torch.inference_mode()
def test_maps_have_the_declared_shapes_at_any_size(size, channels):
    model = tiny(num_classes=0, in_channels=channels).eval()
    maps = model.forward_features(torch.randn(2, channels, *size))
    assert [tuple(feature.shape) for feature in maps] == [
        (2, info.channels, -(-size[0] // info.stride), -(-size[1] // info.stride))
        for info in model.feature_info
    ]


@pytest.mark.parametrize("size", [(160, 160), (45, 70)])
def test_gradients_reach_every_parameter_of_a_pyramid(size):
    model = tiny(num_classes=0).train()
    maps = model.forward_features(torch.randn(2, 3, *size))
    sum(feature.square().mean() for feature in maps).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A key's bias shifts all scores of a query equally, which the softmax ignores.
        assert name.endswith("attn.k.bias") or parameter.grad.any(), name


@torch.inference_mode()
def test_images_of_a_batch_are_independent():
    model = tiny().double().eval()
    images = torch.randn(3, 3, 70, 97, dtype=torch.float64)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]), rtol=1e-9, atol=1e-9)


def test_checkpointed_gradients_are_the_same():
    gradients = []
    for checkpointing in (False, True):
        model = tiny(drop_path=0.0, dropout=0.0).double().train()
        model.gradient_checkpointing = checkpointing
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
        model(images).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_bfloat16_under_autocast_is_finite():
    model = tiny().train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(torch.randn(2, 3, 65, 96))
    logits.float().sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_published_layout_of_another_image_size_loads():
    source = tiny()
    load_published(tiny(), published_layout(source))
    target = tiny(image_size=224)
    load_published(target, published_layout(source))
    resized = target.stages[1].relative_pos
    assert tuple(resized.shape) == (2, 28 * 28, 7 * 7)
    torch.testing.assert_close(source.stages[1].bias(28, 28), resized)


@pytest.mark.slow
def test_head_of_a_published_classifier_is_ignored_only_by_a_pyramid():
    state = published_layout(tiny())
    load_published(tiny(num_classes=0), state)
    assert load_published(tiny(num_classes=3), state).notes
    with pytest.raises(CheckpointError, match="1 unknown"):
        load_published(tiny(), {**state, "blocks_e.0.norm1.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="1 missing"):
        load_published(tiny(), {k: v for k, v in state.items() if k != "relative_pos_c"})


def test_resized_table_is_interpolated_over_queries_and_keys():
    queries, keys = torch.randn(16, 16).double(), torch.randn(8, 8).double()
    table = (queries.flatten()[:, None] * keys.flatten())[None]
    resized = resize_pair_table(table, ((16, 16), (8, 8)), ((24, 10), (12, 5)))
    wider = [
        F.interpolate(image[None, None], size, mode="bicubic", align_corners=False).flatten()
        for image, size in ((queries, (24, 10)), (keys, (12, 5)))
    ]
    torch.testing.assert_close(resized, (wider[0][:, None] * wider[1])[None])
    assert resize_pair_table(table, ((16, 16), (8, 8)), ((16, 16), (8, 8))) is table


def test_image_size_must_fit_the_strides():
    with pytest.raises(ValueError, match="image_size 200"):
        dataclasses.replace(CMTConfig(), image_size=200)

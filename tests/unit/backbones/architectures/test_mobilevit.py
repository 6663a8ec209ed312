"""MobileViT as a pyramid, a classifier and a part of larger graphs."""

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hybrid_backbones import create_model, get_spec, load_published
from hybrid_backbones.architectures.mobilevit import fold_patches, unfold_patches
from hybrid_backbones.weights import CheckpointError

NAMES = ("mobilevit_xxs", "mobilevit_xs", "mobilevit_s")


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    entry = get_spec(name)
    with torch.device("meta"):
        model = create_model(name).eval()
        image = torch.empty(1, 3, entry.image_size, entry.image_size)
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    assert counter.get_total_flops() / 2e9 == pytest.approx(entry.gmacs, rel=0.01)


@pytest.mark.parametrize("size", [(97, 131), (64, 96), (33, 47), (32, 32)])
@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@torch.inference_mode()
def test_maps_have_the_declared_shapes_at_any_size(size, channels):
    model = create_model("mobilevit_xxs", num_classes=0, in_channels=channels).eval()
    maps = model.forward_features(torch.randn(2, channels, *size))
    for info, feature in zip(model.feature_info, maps, strict=True):
        wanted = [-(-side // info.stride) for side in size]
        assert list(feature.shape) == [2, info.channels, *wanted]


def test_expanded_pyramid_declares_its_last_map():
    model = create_model("mobilevit_xxs", features_only=True, expand_last=True)
    assert model.feature_info[-1].channels == 320
    assert model(torch.randn(2, 3, 64, 64))[-1].shape == (2, 320, 2, 2)


def test_gradients_reach_every_parameter_of_the_pyramid():
    model = create_model("mobilevit_xxs", num_classes=0)
    maps = model.forward_features(torch.randn(2, 3, 64, 64))
    sum(feature.square().mean() for feature in maps).backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


@torch.inference_mode()
def test_images_of_a_batch_are_independent():
    model = create_model("mobilevit_xxs").double().eval()
    images = torch.randn(3, 3, 64, 80, dtype=torch.float64)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), alone, rtol=1e-10, atol=1e-12)


def test_folding_undoes_unfolding():
    maps = torch.randn(2, 5, 6, 8)
    tokens = unfold_patches(maps)
    assert torch.equal(tokens[1, 0], maps[0, :, 0, 1])
    assert torch.equal(tokens[2, 1], maps[0, :, 1, 2])
    assert torch.equal(fold_patches(tokens, (6, 8)), maps)


def test_gradient_checkpointing_changes_nothing():
    torch.manual_seed(0)
    plain = create_model("mobilevit_xxs", num_classes=4, dropout=0.0, head_dropout=0.0)
    saving = copy.deepcopy(plain)
    saving.gradient_checkpointing = True
    image = torch.randn(2, 3, 64, 64)
    for model in (plain, saving):
        model(image).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    for (name, one), other in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


@torch.inference_mode()
def test_bfloat16_gives_finite_maps():
    model = create_model("mobilevit_xxs").eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoded = model.encode(torch.rand(1, 3, 65, 97))
        logits = model.forward_head(encoded)
    assert all(feature.isfinite().all() for feature in [*encoded.maps, logits])


@pytest.mark.parametrize("size", [(96, 64), (100, 72)])
@torch.inference_mode()
def test_network_agrees_with_transformers(size):
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileViTConfig(
        hidden_sizes=[64, 80, 96],
        neck_hidden_sizes=[16, 16, 24, 48, 64, 80, 320],
        expand_ratio=2.0,
        num_labels=10,
        initializer_range=0.2,
    )
    theirs = transformers.MobileViTForImageClassification(config).double().eval()
    ours = create_model("mobilevit_xxs", num_classes=10).double().eval()
    load_published(ours, theirs.state_dict())
    image = torch.rand(2, 3, *size, dtype=torch.float64)
    # Theirs takes blue, green, red.
    wanted = theirs(image.flip(1), output_hidden_states=True)
    encoded = ours.encode(image)
    for feature, other in zip(encoded.maps, wanted.hidden_states, strict=True):
        torch.testing.assert_close(feature, other, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.forward_head(encoded), wanted.logits, rtol=1e-9, atol=1e-9)


def test_encoder_of_a_published_segmentation_network_loads():
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileViTConfig(
        hidden_sizes=[64, 80, 96],
        neck_hidden_sizes=[16, 16, 24, 48, 64, 80, 320],
        expand_ratio=2.0,
    )
    theirs = transformers.MobileViTForSemanticSegmentation(config)
    ours = create_model("mobilevit_xxs", num_classes=0, channel_order="bgr")
    load_published(ours, theirs.state_dict())
    stem = theirs.state_dict()["mobilevit.conv_stem.convolution.weight"]
    assert torch.equal(ours.stem.conv.weight, stem)


def test_incomplete_attention_is_reported_as_missing():
    transformers = pytest.importorskip("transformers")
    config = transformers.MobileViTConfig()
    state = transformers.MobileViTForImageClassification(config).state_dict()
    state = {key: value for key, value in state.items() if not key.endswith("key.weight")}
    with pytest.raises(CheckpointError, match="missing"):
        load_published(create_model("mobilevit_s"), state)

"""Mobile-Former as a pyramid with tokens, a classifier and a part of larger graphs."""

import copy

import pytest
import torch

from hybrid_backbones import create_model, list_models
from hybrid_backbones.architectures.mobile_former import shuffle_channels
from hybrid_backbones.backbone import EncoderOutput
from hybrid_backbones.layers.former_bridge import DynamicReLU

SMALL = "mobile_former_26m"
# Without a classifier; from the fact page, whose figures were measured on the official code.
ENCODER_PARAMETERS = {
    "mobile_former_26m": 1_431_404,
    "mobile_former_52m": 1_626_236,
    "mobile_former_96m": 2_003_900,
    "mobile_former_151m": 4_907_788,
    "mobile_former_214m": 5_728_344,
    "mobile_former_294m": 6_580_368,
    "mobile_former_508m": 8_429_000,
}


def test_all_published_sizes_are_registered():
    assert set(list_models("mobile_former*")) == set(ENCODER_PARAMETERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODER_PARAMETERS)
def test_encoder_has_the_parameters_of_the_published_one_without_classifier(name):
    with torch.device("meta"):
        encoder = create_model(name, num_classes=0)
    assert sum(value.numel() for value in encoder.parameters()) == ENCODER_PARAMETERS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODER_PARAMETERS)
def test_maps_and_tokens_have_the_declared_shapes_at_any_size(name):
    with torch.device("meta"):
        model = create_model(name, num_classes=0).eval()
    assert [info.stride for info in model.feature_info] == [2, 4, 8, 16, 32]
    for size in ((97, 131), (64, 96), (33, 47), (32, 32)):
        encoded = model.encode(torch.empty(2, 3, *size, device="meta"))
        assert encoded.tokens.shape == (2, model.config.tokens, model.config.token_width)
        for info, feature in zip(model.feature_info, encoded.maps, strict=True):
            wanted = [-(-side // info.stride) for side in size]
            assert list(feature.shape) == [2, info.channels, *wanted]


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@torch.inference_mode()
def test_images_of_any_channel_count_give_finite_maps(channels):
    model = create_model(SMALL, features_only=True, in_channels=channels).eval()
    maps = model(torch.randn(2, channels, 33, 47))
    assert all(feature.isfinite().all() for feature in maps)


@pytest.mark.parametrize("name", [SMALL, "mobile_former_96m"])
def test_gradients_reach_every_parameter_of_the_pyramid(name):
    model = create_model(name, num_classes=0)
    maps = model.forward_features(torch.randn(2, 3, 64, 64))
    sum(feature.square().mean() for feature in maps).backward()
    assert [key for key, value in model.named_parameters() if value.grad is None] == []


@torch.inference_mode()
def test_images_of_a_batch_are_independent():
    model = create_model(SMALL, drop_path=0.2).double().eval()
    images = torch.randn(3, 3, 64, 80, dtype=torch.float64)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), alone, rtol=1e-10, atol=1e-12)


def test_only_the_first_token_sets_the_slopes():
    layer = DynamicReLU(5, 16)
    maps, tokens = torch.randn(2, 5, 4, 4), torch.randn(2, 3, 16)
    other = tokens.clone()
    other[:, 1:] = 0
    assert torch.equal(layer(maps, tokens), layer(maps, other))
    with torch.no_grad():
        layer.expand.weight.zero_()
        layer.expand.bias.zero_()
    # Halfway between their bounds the slopes are 1 and 0: the plain ReLU.
    torch.testing.assert_close(layer(maps, tokens), maps.relu())


def test_shuffling_interleaves_groups():
    maps = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffle_channels(maps, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_head_without_tokens_is_refused():
    model = create_model(SMALL)
    with pytest.raises(ValueError, match="tokens"):
        model.forward_head(EncoderOutput([torch.zeros(1, 96, 1, 1)]))


def test_gradient_checkpointing_changes_nothing():
    torch.manual_seed(0)
    plain = create_model(SMALL, num_classes=4, head_dropout=0.0)
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
    model = create_model(SMALL).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoded = model.encode(torch.randn(1, 3, 65, 97))
        logits = model.forward_head(encoded)
    assert all(value.isfinite().all() for value in [*encoded.maps, encoded.tokens, logits])

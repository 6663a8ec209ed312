"""Folding batch norms changes no output, and the result is for inference only."""

import pytest
import torch
from torch import nn

from hybrid_backbones import FeatureExtractor, create_model, fuse, load_published
from hybrid_backbones.weights import CheckpointError

# With the number of remaining norms: CMT's behind a GELU and in front of a padded convolution.
SMALL = {
    "cmt_ti": ({"depths": (1, 1, 1, 1), "image_size": 64}, 3 + 4),
    "cvt_13": ({"depths": (1, 1, 1)}, 0),
    "mobile_former_26m": ({}, 0),
    "mobilevit_xxs": ({"depths": (1, 1, 1)}, 0),
    "moa_tiny": ({"depths": (1, 1, 1), "window_size": 4, "image_size": 64}, 0),
    "swin_tiny": ({"depths": (2, 1, 1, 1)}, 0),
    "vitae_base": ({"embed_dim": 96, "depth": 2, "num_heads": 3, "image_size": 64}, 0),
    "vitae_tiny": ({"depths": (0, 0, 1)}, 0),
    "vitaev2_s": ({"depths": (1, 1, 1, 1)}, 0),
}
Norm = nn.BatchNorm1d | nn.BatchNorm2d


def make(name, **fields):
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, **{**SMALL[name][0], **fields}).double().eval()
    for module in model.modules():
        if isinstance(module, Norm):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.4, 2.0)
            nn.init.normal_(module.weight, mean=1, std=0.3)
            nn.init.normal_(module.bias, std=0.3)
    return model


def norms_of(model):
    return [name for name, module in model.named_modules() if isinstance(module, Norm)]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_fused_network_gives_the_same_maps_and_logits(name):
    model = make(name)
    fused = fuse(model)
    assert len(norms_of(fused)) == SMALL[name][1]
    image = torch.randn(2, 3, 65, 97, dtype=torch.float64)
    encoded, other = model.encode(image), fused.encode(image)
    for feature, wanted in zip(other.maps, encoded.maps, strict=True):
        torch.testing.assert_close(feature, wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(fused(image), model(image), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["cvt_13", "mobilevit_xxs", "cmt_ti"])
def test_fusing_leaves_the_network_itself_as_it_was(name):
    model = make(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fuse(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", SMALL)
def test_fused_network_refuses_to_train(name):
    fused = fuse(make(name))
    with pytest.raises(RuntimeError, match="fused for inference") as caught:
        fused.train()
    assert "\n" not in str(caught.value)
    assert not fused.training
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    fused.eval()


def test_fused_network_refuses_published_checkpoints():
    model = make("cvt_13")
    with pytest.raises(CheckpointError, match="is fused"):
        load_published(fuse(model), model.state_dict())


@torch.inference_mode()
def test_pyramids_fuse_too():
    model = make("mobilevit_xxs")
    pyramid = FeatureExtractor(model, levels=(1, 3))
    fused = fuse(pyramid)
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    for feature, wanted in zip(fused(image), pyramid(image), strict=True):
        torch.testing.assert_close(feature, wanted, rtol=1e-10, atol=1e-10)
    assert norms_of(fused) == []
    with pytest.raises(RuntimeError, match="fused"):
        fused.train()


@torch.inference_mode()
def test_fusing_twice_is_fusing_once():
    once = fuse(make("vitae_tiny"))
    twice = fuse(once)
    assert all(
        torch.equal(value, twice.state_dict()[key]) for key, value in once.state_dict().items()
    )

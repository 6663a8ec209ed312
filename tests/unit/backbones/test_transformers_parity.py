"""CvT and Swin load the layout of transformers and reproduce its results."""

import pytest
import torch
from torch import nn

from hybrid_backbones import create_model, load_published
from hybrid_backbones.weights import CheckpointError

transformers = pytest.importorskip("transformers")


class QuickGELU(nn.Module):
    """The activation of the official CvT; transformers uses the exact GELU instead."""

    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


def with_random_values(model):
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            if not value.is_floating_point():
                continue
            synthetic = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(0.5 + synthetic.abs())
            elif value.ndim > 1:
                value.copy_(synthetic * value[0].numel() ** -0.5)
            else:
                value.copy_(0.1 * synthetic + float(name.endswith("weight")))
    return model.double().eval()


def their_cvt():
    config = transformers.CvtConfig(depth=[1, 2, 3], num_labels=10)
    model = transformers.CvtForImageClassification(config)
    for name in [name for name, _ in model.named_modules()]:
        if name.endswith("intermediate.activation"):
            model.set_submodule(name, QuickGELU())
    return with_random_values(model)


def their_swin(**settings):
    config = transformers.SwinConfig(
        embed_dim=24, depths=[2, 2, 2, 2], num_labels=10, **{"window_size": 7, **settings}
    )
    return with_random_values(transformers.SwinForImageClassification(config))


def our_swin(**fields):
    return create_model(
        "swin_tiny", embed_dim=24, depths=(2, 2, 2, 2), num_classes=10, **fields
    ).double()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 96), (97, 131)])
@torch.inference_mode()
def test_cvt_agrees_with_transformers(size):
    theirs = their_cvt()
    ours = create_model("cvt_13", depths=(1, 2, 3), num_classes=10).double().eval()
    report = load_published(ours, theirs.state_dict())
    assert report.notes == ()
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    wanted = theirs(image, output_hidden_states=True)
    encoded = ours.encode(image)
    for feature, other in zip(encoded.maps, wanted.hidden_states, strict=True):
        torch.testing.assert_close(feature, other, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.forward_head(encoded), wanted.logits, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("window", "size"), [(7, (224, 224)), (4, (128, 160)), (4, (126, 150))])
@torch.inference_mode()
def test_swin_agrees_with_transformers(window, size):
    theirs = their_swin(window_size=window)
    ours = our_swin(window_size=window).eval()
    report = load_published(ours, theirs.state_dict())
    assert report.notes == ()
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    wanted = theirs(image).logits
    torch.testing.assert_close(ours(image), wanted, rtol=1e-9, atol=1e-9)


def as_older_files(state):
    """Rename to what versions 4 of transformers wrote."""
    renamed = {}
    for key, value in state.items():
        for new, old in (
            ("attention.q_proj", "attention.self.query"),
            ("attention.k_proj", "attention.self.key"),
            ("attention.v_proj", "attention.self.value"),
            ("attention.o_proj", "attention.output.dense"),
            ("attention.relative_position_bias.", "attention.self."),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ):
            key = key.replace(new, old)  # noqa: PLW2901
        renamed[key] = value
    return renamed


def test_older_layout_of_swin_loads_to_the_same_weights():
    theirs = their_swin().state_dict()
    older = as_older_files(theirs)
    assert set(older) != set(theirs)
    new, old = our_swin(), our_swin()
    load_published(new, theirs)
    load_published(old, older)
    assert all(torch.equal(v, old.state_dict()[k]) for k, v in new.state_dict().items())


@pytest.mark.slow
def test_incomplete_attention_of_swin_is_reported():
    state = their_swin().state_dict()
    state = {key: value for key, value in state.items() if "key" not in key and "k_proj" not in key}
    with pytest.raises(CheckpointError, match="missing"):
        load_published(our_swin(), state)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["cvt", "swin"])
def test_every_key_is_used_or_reported(layout):
    theirs = their_cvt() if layout == "cvt" else their_swin()
    ours = (
        create_model("cvt_13", depths=(1, 2, 3), num_classes=10) if layout == "cvt" else our_swin()
    )
    state = {**theirs.state_dict(), f"{layout}.encoder.extra": torch.ones(1)}
    with pytest.raises(CheckpointError, match=r"1 unknown .*extra"):
        load_published(ours, state)

"""Every architecture fulfills the contract of `Backbone`."""

import copy
import math

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@torch.inference_mode()
def test_maps_are_finite_and_of_the_declared_shapes(family, channels):
    model = family.build(num_classes=0, in_channels=channels).eval()
    for size in ((32, 32), (33, 47), (97, 61)):
        maps = model.forward_features(torch.randn(2, channels, *size))
        for info, feature in zip(model.feature_info, maps, strict=True):
            wanted = [math.ceil(side / info.stride) for side in size]
            assert list(feature.shape) == [2, info.channels, *wanted]
            assert feature.isfinite().all()


@pytest.mark.parametrize("classes", [0, 10])
def test_a_gradient_reaches_every_parameter(family, image, classes):
    model = family.without_chance(num_classes=classes)
    outputs = [model(image)] if classes else model.forward_features(image)
    # A random direction: the mean of normed maps has no gradient at all.
    sum((output * torch.randn_like(output)).mean() for output in outputs).backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    without = [name for name, p in trained.items() if p.grad is None or not p.grad.any()]
    if family.name == "cvt_13" and classes:
        # CvT classifies its class token, whose query passes no convolution: in the last block
        # that of the queries serves the maps alone. Its gradient is there and zero.
        without = [name for name in without if ".blocks.1.attn.conv_proj_q." not in name]
        assert all(p.grad is not None for p in trained.values())
    assert without == []


def test_pyramid_has_no_parameter_that_distributed_training_would_miss(family, image):
    model = family.build(num_classes=0)
    encoded = model.encode(image)
    outputs = encoded.maps if encoded.tokens is None else [*encoded.maps, encoded.tokens]
    sum(output.float().square().mean() for output in outputs).backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []


def test_only_the_features_of_performers_are_fixed_parameters(family):
    fixed = [n for n, p in family.build().named_parameters() if not p.requires_grad]
    assert all(name.endswith(".attn.w") for name in fixed)
    assert not fixed or family.name == "vitae_tiny"


@torch.inference_mode()
def test_images_of_a_batch_are_independent(family):
    model = family.build().double().eval()
    images = torch.randn(3, 3, 50, 70, dtype=torch.float64)
    alone = [model.encode(image[None]) for image in images]
    together = model.encode(images)
    changed = model.encode(torch.cat((images[:1], 9 * images[1:])))
    for level, feature in enumerate(together.maps):
        single = torch.cat([encoded.maps[level] for encoded in alone])
        scale = feature.abs().max().item()
        torch.testing.assert_close(feature, single, rtol=0, atol=1e-10 * scale)
        torch.testing.assert_close(feature[:1], changed.maps[level][:1], rtol=0, atol=1e-10 * scale)
    logits = torch.cat([model.forward_head(encoded) for encoded in alone])
    torch.testing.assert_close(model(images), logits, rtol=1e-9, atol=1e-9)


@torch.inference_mode()
def test_evaluation_is_deterministic_and_does_not_change_the_image(family, image):
    model = family.build().eval()
    kept = image.clone()
    first = model(image)
    assert torch.equal(model(image), first)
    assert torch.equal(image, kept)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_evaluation_with_gradients_equals_evaluation_without(family, image, layout):
    model = family.build().double().eval()
    image = image.double().contiguous(memory_format=layout)
    with torch.no_grad():
        plain = model(image)
    torch.testing.assert_close(model(image.requires_grad_()), plain, rtol=1e-9, atol=1e-9)


def test_single_precision_is_near_double_precision(family, image):
    model = family.build().eval()
    with torch.inference_mode():
        single = model(image).double()
        double = model.double()(image.double())
    assert (single - double).abs().max() <= 2e-5 * double.abs().max()


@torch.inference_mode()
def test_bfloat16_is_finite_and_near_single_precision(family):
    model = family.build().eval()
    image = torch.randn(2, 3, 65, 97)
    full = model(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoded = model.encode(image)
        half = model.forward_head(encoded).float()
    assert all(feature.isfinite().all() for feature in encoded.maps)
    assert (half - full).norm() < 0.1 * full.norm()


def test_bfloat16_trains(family, image):
    model = family.build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nn.functional.cross_entropy(model(image).float(), torch.tensor([1, 2]))
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_gradient_checkpointing_changes_neither_values_nor_gradients(family, image):
    plain = family.without_chance()
    saving = copy.deepcopy(plain)
    saving.gradient_checkpointing = True
    logits = []
    for model in (plain, saving):
        logits.append(model(image))
        logits[-1].square().sum().backward()
    torch.testing.assert_close(logits[1], logits[0])
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    for (name, one), other in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_checkpointing_draws_random_numbers_once(family, image):
    config = family.build(num_classes=0).config
    rates = {"drop_path": 0.5} if hasattr(config, "drop_path") else {}
    plain = family.build(**rates)
    saving = copy.deepcopy(plain)
    saving.gradient_checkpointing = True
    for model in (plain, saving):
        torch.manual_seed(5)
        model(image).square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)


def test_state_dict_round_trip(family, image, tmp_path):
    model = family.build().eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = family.build()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True), strict=True)
    with torch.inference_mode():
        assert torch.equal(other.eval()(image), model(image))


def test_pyramid_is_the_classifier_without_its_head(family):
    headless, model = family.build(num_classes=0).eval(), family.build().eval()
    own = headless.state_dict()
    whole = model.state_dict()
    assert set(own) < set(whole)
    headless.load_state_dict({key: whole[key] for key in own})
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        pairs = zip(headless.forward_features(image), model.forward_features(image), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_a_training_step_lowers_the_loss(family, image):
    model = family.without_chance()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    target = torch.tensor([1, 2])
    losses = []
    for _ in range(4):
        loss = nn.functional.cross_entropy(model(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[1:]) < losses[0]

"""Mixup and CutMix: labels match the pixels, and the generator determines the result."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from segnetr.config.schema.classification_recipe import MixingConfig
from segnetr.data.augmentation.mixup import BatchMixer, cut_box, mixing_generator

MIXUP = MixingConfig(mixup_alpha=0.8)
CUTMIX = MixingConfig(cutmix_alpha=1.0)
BOTH = MixingConfig(mixup_alpha=0.8, cutmix_alpha=1.0)
seeds = st.integers(0, 2**63 - 1)
counts = st.integers(1, 9)


def constant_images(count, size=(12, 10)):
    """Image i is i everywhere, and its class is i: the pixels say what the label has to be."""
    values = torch.arange(count, dtype=torch.float32)
    return values.reshape(-1, 1, 1, 1).expand(-1, 3, *size).clone(), torch.arange(count)


def mix(config, images, targets, classes, seed, epoch=0):
    generator = torch.Generator().manual_seed(seed)
    return BatchMixer(config, classes)(images, targets, epoch=epoch, generator=generator)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([MIXUP, CUTMIX, BOTH]), counts, seeds)
def test_labels_equal_the_share_of_each_image(config, count, seed):
    images, targets = constant_images(count)
    mixed, shares = mix(config, images, targets, count, seed)
    assert shares.shape == (count, count)
    torch.testing.assert_close(shares.sum(1), torch.ones(count))
    assert (shares >= 0).all()
    # The mean of a image is the mean of the classes it is made of.
    expected = shares.double() @ torch.arange(count, dtype=torch.float64)
    torch.testing.assert_close(mixed.double().mean((1, 2, 3)), expected, atol=1e-4, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(counts, seeds)
def test_cutmix_label_is_the_count_of_pixels(count, seed):
    images, targets = constant_images(count)
    mixed, shares = mix(CUTMIX, images, targets, count, seed)
    for row in range(count):
        pixels = torch.bincount(mixed[row, 0].flatten().long(), minlength=count) / 120
        torch.testing.assert_close(shares[row], pixels, atol=1e-6, rtol=0)


@given(st.integers(1, 50), st.integers(1, 50), st.floats(0, 1), st.floats(0, 0.999),
       st.floats(0, 0.999))  # fmt: skip
def test_rectangle_is_inside_and_never_larger_than_intended(height, width, share, down, across):
    rows, columns = cut_box(height, width, share=share, center=(down, across))
    assert 0 <= rows.start <= height
    assert 0 <= rows.stop <= height
    assert 0 <= columns.start <= width
    assert 0 <= columns.stop <= width
    area = max(0, rows.stop - rows.start) * max(0, columns.stop - columns.start)
    assert area <= (1 - share) * height * width + 1e-6


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([MIXUP, CUTMIX, BOTH]), seeds)
def test_equal_generators_mix_equally_and_the_input_is_not_changed(config, seed):
    images, targets = constant_images(5)
    kept = images.clone()
    first, second = (mix(config, images, targets, 5, seed) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(images, kept)


@pytest.mark.parametrize(
    "config", [MIXUP, CUTMIX, BOTH, MixingConfig(), MixingConfig(mixup_alpha=1, probability=0)]
)
def test_every_call_draws_the_same_number_of_values(config):
    images, targets = constant_images(4)
    generator = torch.Generator().manual_seed(3)
    BatchMixer(config, 4)(images, targets, epoch=0, generator=generator)
    plain = torch.Generator().manual_seed(3)
    BatchMixer(MixingConfig(), 4)(images, targets, epoch=0, generator=plain)
    assert torch.equal(generator.get_state(), plain.get_state())


@pytest.mark.parametrize(
    ("config", "epoch"),
    [
        (MixingConfig(), 0),
        (MixingConfig(mixup_alpha=0.8, probability=0), 0),
        (MixingConfig(mixup_alpha=0.8, off_epoch=3), 3),
        (MixingConfig(cutmix_alpha=1, off_epoch=3), 9),
    ],
)
def test_unmixed_batch_keeps_its_images_and_labels(config, epoch):
    images, targets = constant_images(4)
    for seed in range(20):
        mixed, shares = mix(config, images, targets, 6, seed, epoch)
        assert torch.equal(mixed, images)
        assert torch.equal(shares, F.one_hot(targets, 6).float())


def test_before_the_off_epoch_batches_are_mixed():
    images, targets = constant_images(4)
    config = MixingConfig(mixup_alpha=0.8, off_epoch=3)
    assert any(not torch.equal(mix(config, images, targets, 4, s, 2)[0], images) for s in range(9))


def test_probability_and_switch_are_the_shares_of_batches():
    images, targets = constant_images(6)
    config = MixingConfig(
        mixup_alpha=1.0, cutmix_alpha=1.0, probability=0.6, switch_probability=0.25
    )
    kinds = {"plain": 0, "cut": 0, "blended": 0}
    for seed in range(600):
        mixed, shares = mix(config, images, targets, 6, seed)
        if torch.equal(shares, F.one_hot(targets, 6).float()):
            kinds["plain"] += 1
        else:
            kinds["cut" if torch.equal(mixed, mixed.round()) else "blended"] += 1
    # A cut may be empty and a share 1, so that some mixed batches look plain.
    assert kinds["plain"] / 600 == pytest.approx(0.4, abs=0.07)
    assert kinds["blended"] / 600 == pytest.approx(0.45, abs=0.07)
    assert kinds["cut"] / 600 == pytest.approx(0.15, abs=0.05)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_share_has_the_mean_and_variance_of_the_beta_distribution(alpha):
    images, targets = constant_images(2, size=(2, 2))
    shares = []
    for seed in range(4000):
        _, labels = mix(MixingConfig(mixup_alpha=alpha), images, targets, 2, seed)
        shares.append(labels[0, 0].item())
    mixed = np.array(shares)[np.array(shares) < 1]  # half of the batches pair with themselves
    assert len(mixed) > 1500
    assert mixed.mean() == pytest.approx(0.5, abs=0.03)
    assert mixed.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_smoothing_before_and_after_mixing_is_the_same():
    images, targets = constant_images(5)
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    smooth = F.one_hot(targets, 5).float() * 0.9 + 0.1 / 5
    _, late = mix(BOTH, images, targets, 5, 7)
    _, early = mix(BOTH, images, smooth, 5, 7)
    torch.testing.assert_close(
        F.cross_entropy(logits, late, label_smoothing=0.1), F.cross_entropy(logits, early)
    )


def test_multi_labels_are_mixed():
    images, _ = constant_images(2)
    multi_label = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]])
    for seed in range(10):
        _, shares = mix(MIXUP, images, multi_label, 3, seed)
        torch.testing.assert_close(shares.sum(1), torch.full((2,), 2.0))
        torch.testing.assert_close(shares[:, 1], torch.ones(2))


@pytest.mark.parametrize(
    "targets", [torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 4), torch.zeros(2)]
)
def test_labels_with_a_wrong_shape_are_refused(targets):
    images, _ = constant_images(2)
    with pytest.raises(ValueError, match="expected"):
        mix(MIXUP, images, targets, 3, 0)


def test_memory_layout_is_preserved():
    images, targets = constant_images(4)
    images = images.contiguous(memory_format=torch.channels_last)
    for config in (MIXUP, CUTMIX):
        mixed, _ = mix(config, images, targets, 4, 1)
        assert mixed.is_contiguous(memory_format=torch.channels_last)


def test_generators_of_seeds_steps_and_ranks_all_differ():
    states = {
        mixing_generator(seed, step=step, rank=rank).initial_seed()
        for seed in (-1, 0, 2**70)
        for step in (0, 1, 11)
        for rank in (0, 1)
    }
    assert len(states) == 18
    again = mixing_generator(-1, step=11, rank=1).get_state()
    assert torch.equal(again, mixing_generator(-1, step=11, rank=1).get_state())

"""The order of cases depends only on seed and step, so the sampler can be resumed at any step."""

import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segnetr.data.loading.loaders import ResumableSampler, SampleKey, balanced_rows, permute_rows

sizes = st.integers(1, 40)
batches = st.integers(1, 9)
seeds = st.integers(-(2**70), 2**70)


def places(sampler: ResumableSampler) -> list[SampleKey]:
    return [key for batch in sampler for key in batch]


@given(sizes, batches, seeds)
def test_every_batch_is_full_and_every_epoch_contains_every_case_once(
    size: int, batch_size: int, seed: int
) -> None:
    sampler = ResumableSampler(size, batch_size=batch_size, seed=seed, steps=3 * size)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 3 * size
    assert {len(batch) for batch in batches} == {batch_size}
    keys = places(sampler)
    for epoch in range(len(keys) // size):
        chunk = keys[epoch * size : (epoch + 1) * size]
        assert {key.epoch for key in chunk} == {epoch}
        assert sorted(key.row for key in chunk) == list(range(size))


@given(sizes, batches, seeds, st.integers(0, 30))
def test_resumed_order_continues_the_unbroken_one(
    size: int, batch_size: int, seed: int, start: int
) -> None:
    unbroken = ResumableSampler(size, batch_size=batch_size, seed=seed, steps=30)
    resumed = ResumableSampler(size, batch_size=batch_size, seed=seed, steps=30, start_step=start)
    assert list(resumed) == list(unbroken)[start:]
    assert len(resumed) == 30 - start


@given(sizes, batches, seeds, st.integers(1, 4))
def test_ranks_see_the_same_cases_as_accumulated_steps_of_one_process(
    size: int, batch_size: int, seed: int, world: int
) -> None:
    ranks = [
        list(ResumableSampler(size, batch_size=batch_size, seed=seed, steps=7, rank=r, world=world))
        for r in range(world)
    ]
    alone = list(ResumableSampler(size, batch_size=batch_size, seed=seed, steps=7 * world))
    together = [batch for step in zip(*ranks, strict=True) for batch in step]
    assert together == alone


@given(seeds)
def test_ranks_never_share_a_case_within_an_epoch(seed: int) -> None:
    ranks = [
        set(places(ResumableSampler(24, batch_size=2, seed=seed, steps=6, rank=rank, world=2)))
        for rank in range(2)
    ]
    assert len(ranks[0]) == len(ranks[1]) == 12
    assert not ranks[0] & ranks[1]


def test_same_sampler_gives_the_same_order_twice() -> None:
    sampler = ResumableSampler(10, batch_size=4, seed=3, steps=9)
    assert list(sampler) == list(sampler)


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = {tuple(permute_rows(50, seed=s, epoch=e)) for s in (-1, 0, 1, 2**64) for e in range(5)}
    assert len(orders) == 20


def test_order_equals_the_recorded_one() -> None:
    # A change here breaks the repetition of every run recorded so far.
    assert permute_rows(10, seed=0, epoch=0).tolist() == [7, 0, 5, 4, 3, 6, 9, 2, 1, 8]
    assert SampleKey(2, 7).seed(1) == 442406946


def test_every_row_is_first_about_equally_often() -> None:
    first = np.bincount([permute_rows(5, seed=0, epoch=e)[0] for e in range(2000)], minlength=5)
    assert first.min() > 320
    assert first.max() < 480


def test_seeds_of_samples_do_not_repeat() -> None:
    seeds = {SampleKey(e, r).seed(s) for e in range(20) for r in range(50) for s in range(5)}
    assert len(seeds) == 5000
    assert min(seeds) >= 0
    assert max(seeds) < 2**32


def test_global_random_states_are_not_changed() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    list(ResumableSampler(10, batch_size=4, seed=3, steps=9))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after


def test_key_can_be_pickled() -> None:
    key = SampleKey(3, 4)
    assert pickle.loads(pickle.dumps(key)) == key


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"batch_size": 0},
        {"rank": 2, "world": 2},
        {"rank": -1},
        {"start_step": -1},
    ],
)
def test_number_out_of_range_is_refused(wrong: dict[str, int]) -> None:
    numbers = {"size": 5, "batch_size": 2, "seed": 0, "steps": 3, **wrong}
    with pytest.raises(ValueError, match=r"-?\d"):
        ResumableSampler(numbers.pop("size"), **numbers)


label_lists = st.lists(st.integers(0, 4), min_size=1, max_size=20)


@settings(max_examples=25, deadline=None)
@given(label_lists, seeds, st.integers(0, 5))
def test_balanced_epoch_uses_each_class_equally_often(
    labels: list[int], seed: int, epoch: int
) -> None:
    keys = balanced_rows(labels, seed=seed, epoch=epoch)
    assert len(keys) == len(labels)
    shown = [labels[key.row] for key in keys]
    classes = set(labels)
    counts = [shown.count(label) for label in classes]
    assert max(counts) - min(counts) <= 1
    for start in range(0, len(keys) - len(classes) + 1, len(classes)):
        assert set(shown[start : start + len(classes)]) == classes


@settings(max_examples=25, deadline=None)
@given(label_lists, seeds)
def test_classes_and_their_rows_are_even_over_many_balanced_epochs(
    labels: list[int], seed: int
) -> None:
    classes = set(labels)
    epochs = 3 * len(classes)
    keys = [key for e in range(epochs) for key in balanced_rows(labels, seed=seed, epoch=e)]
    shown = [labels[key.row] for key in keys]
    assert {shown.count(label) for label in classes} == {epochs * len(labels) // len(classes)}
    uses = [sum(key.row == row for key in keys) for row in range(len(labels))]
    for label in classes:
        own = [use for use, row_label in zip(uses, labels, strict=True) if row_label == label]
        assert max(own) - min(own) <= 1


@settings(max_examples=25, deadline=None)
@given(label_lists, seeds)
def test_no_sample_key_is_repeated(labels: list[int], seed: int) -> None:
    keys = [key for epoch in range(4) for key in balanced_rows(labels, seed=seed, epoch=epoch)]
    assert len(set(keys)) == len(keys)
    for row in range(len(labels)):
        uses = [key.epoch for key in keys if key.row == row]
        assert uses == list(range(len(uses)))


@settings(max_examples=25, deadline=None)
@given(label_lists, batches, seeds, st.integers(0, 9), st.integers(1, 3))
def test_balanced_order_can_be_resumed_and_shared_by_ranks(
    labels: list[int], batch_size: int, seed: int, start: int, world: int
) -> None:
    def make(**kwargs: int) -> ResumableSampler:
        return ResumableSampler(
            len(labels), batch_size=batch_size, seed=seed, labels=labels, **kwargs
        )

    assert list(make(steps=9, start_step=start)) == list(make(steps=9))[start:]
    ranks = [list(make(steps=5, rank=rank, world=world)) for rank in range(world)]
    together = [batch for step in zip(*ranks, strict=True) for batch in step]
    assert together == list(make(steps=5 * world))


def test_balanced_order_depends_on_the_seed() -> None:
    labels = [0] * 20 + [1] * 5
    orders = {tuple(balanced_rows(labels, seed=seed, epoch=0)) for seed in range(5)}
    assert len(orders) == 5


def test_labels_for_another_number_of_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="3 labels for 4 rows"):
        ResumableSampler(4, batch_size=1, seed=0, steps=1, labels=[0, 1, 1])

"""Batches depend only on seed and step, not on workers, restarts or threads."""

import os
import pickle
import random
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import Dataset
from monai.transforms import MapTransform, RandAdjustContrastd
from PIL import Image

from segnetr.config.schema.segmentation import AugmentConfig, IntensityConfig
from segnetr.data.augmentation.transforms import evaluation_transform, training_transform
from segnetr.data.cache import segmentation as cache_module
from segnetr.data.cache.segmentation import CachedCase, CacheSettings, build_cache
from segnetr.data.case import Batch, Case
from segnetr.data.loading.loaders import (
    ResumableSampler,
    SampleKey,
    SeededDataset,
    evaluation_loader,
    training_loader,
)
from segnetr.errors import ReadError, SegNetrError

SIZE = (32, 32)
AUGMENT = AugmentConfig(blur=0.5, noise=0.5, elastic=0.5, dropout=0.5)


@pytest.fixture
def entries(tmp_path: Path) -> list[CachedCase]:
    result = []
    for number in range(5):
        draw = np.random.default_rng(number)
        image, mask = tmp_path / f"i{number}.npy", tmp_path / f"m{number}.npy"
        np.save(image, draw.integers(0, 256, (36, 44, 3), dtype=np.uint8))
        np.save(mask, (draw.random((36, 44)) < 0.5).astype(np.uint8))
        result.append(
            CachedCase(case_id=f"c{number}", image=image, mask=mask, original_size=(36, 44))
        )
    return result


def chain(*extra: Any) -> Any:
    return training_transform(
        AUGMENT, image_size=SIZE, intensity=IntensityConfig(), channels=3, extra=extra
    )


def load(
    entries: Sequence[CachedCase], *, workers: int, start: int = 0, steps: int = 6, seed: int = 0
) -> list[Batch]:
    sampler = ResumableSampler(len(entries), batch_size=3, seed=seed, steps=steps, start_step=start)
    transform = chain(RandAdjustContrastd("image", prob=0.5))
    return list(training_loader(entries, transform, sampler=sampler, workers=workers, seed=seed))


def assert_equal(one: Sequence[Batch], two: Sequence[Batch]) -> None:
    assert len(one) == len(two)
    for left, right in zip(one, two, strict=True):
        assert torch.equal(left["image"], right["image"])
        assert torch.equal(left["mask"], right["mask"])
        assert left["case_id"] == right["case_id"]


def read_global_states() -> tuple[Any, ...]:
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_bit_identical_for_any_number_of_workers(
    entries: list[CachedCase], workers: int
) -> None:
    assert_equal(load(entries, workers=0), load(entries, workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [1, 4])
def test_resumed_loader_continues_the_unbroken_one(
    entries: list[CachedCase], workers: int, start: int
) -> None:
    assert_equal(load(entries, workers=0)[start:], load(entries, workers=workers, start=start))


def test_batches_are_bit_identical_for_any_number_of_threads(entries: list[CachedCase]) -> None:
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append(load(entries, workers=0))
    finally:
        torch.set_num_threads(threads)
    assert_equal(*results)


def test_seeds_and_epochs_differ(entries: list[CachedCase]) -> None:
    dataset = SeededDataset(entries, chain(), seed=0)
    again = SeededDataset(entries, chain(), seed=1)
    samples = [dataset[SampleKey(epoch, 2)] for epoch in range(3)] + [again[SampleKey(0, 2)]]
    assert len({sample["image"].numpy().tobytes() for sample in samples}) == 4


def test_batch_matches_its_type(entries: list[CachedCase]) -> None:
    for workers in (0, 2):
        for batch in load(entries, workers=workers, steps=2):
            assert set(batch) == Batch.__required_keys__ | {"mask"}
            assert type(batch["image"]) is type(batch["mask"]) is torch.Tensor
            assert (batch["image"].shape, batch["image"].dtype) == ((3, 3, *SIZE), torch.float32)
            assert (batch["mask"].shape, batch["mask"].dtype) == ((3, 1, *SIZE), torch.int64)
            assert all(type(case_id) is str for case_id in batch["case_id"])


def test_global_random_states_are_not_changed(entries: list[CachedCase]) -> None:
    for workers in (0, 2):
        before = read_global_states()
        load(entries, workers=workers)
        after = read_global_states()
        assert before == after


def test_dataset_smaller_than_a_batch_fills_its_batches(entries: list[CachedCase]) -> None:
    sampler = ResumableSampler(2, batch_size=5, seed=0, steps=2)
    loader = training_loader(entries[:2], chain(), sampler=sampler, workers=0, seed=0)
    batches = list(loader)
    assert [batch["image"].shape[0] for batch in batches] == [5, 5]
    # The same case twice in one batch belongs to two epochs, and is augmented twice.
    assert len({image.numpy().tobytes() for batch in batches for image in batch["image"]}) == 10


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_yields_each_case_once_in_order(entries: list[CachedCase], workers: int) -> None:
    transform = evaluation_transform(SIZE, IntensityConfig(), 3)
    loader = evaluation_loader(entries, transform, batch_size=2, workers=workers)
    for _ in range(2):  # persistent workers start over
        batches = list(loader)
        assert [batch["case_id"] for batch in batches] == [["c0", "c1"], ["c2", "c3"], ["c4"]]
        assert [batch["image"].shape[0] for batch in batches] == [2, 2, 1]
    first = transform({"image": entries[0].image, "mask": entries[0].mask})
    assert torch.equal(batches[0]["image"][0], first["image"])


def test_dataset_is_a_monai_dataset_with_rows(entries: list[CachedCase]) -> None:
    dataset = SeededDataset(entries, chain(), seed=4)
    assert isinstance(dataset, Dataset)
    assert len(dataset) == 5
    assert torch.equal(dataset[-1]["image"], dataset[SampleKey(0, 4)]["image"])
    with pytest.raises(IndexError):
        dataset[5]


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_copy_is_a_one_line_error_that_names_the_case(
    entries: list[CachedCase], workers: int
) -> None:
    entries[3].mask.write_bytes(b"torn")
    with pytest.raises(ReadError, match="case c3") as raised:
        load(entries, workers=workers)
    assert raised.value.path == entries[3].mask
    assert "\n" not in str(raised.value)


def test_read_error_survives_pickling(tmp_path: Path) -> None:
    error = ReadError(tmp_path / "a.png", "broken")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


class Failing(MapTransform):  # type: ignore[misc]
    """Fails on one case, as a user's transform may."""

    def __call__(self, data: Any) -> Any:
        if data["case_id"] == "c2":
            raise KeyError("no such thing")
        return data


class Dying(MapTransform):  # type: ignore[misc]
    """Kills its worker, as the system does when memory runs out."""

    def __call__(self, data: Any) -> Any:
        if data["case_id"] == "c2" and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return data


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_failing_transform_names_case_and_transform(
    entries: list[CachedCase], workers: int
) -> None:
    sampler = ResumableSampler(5, batch_size=3, seed=0, steps=4)
    loader = training_loader(
        entries, chain(Failing("image")), sampler=sampler, workers=workers, seed=0
    )
    with pytest.raises(RuntimeError, match=r"case c2 .*i2\.npy.*Failing.*no such thing"):
        list(loader)


@pytest.mark.slow
def test_killed_worker_is_an_error_and_not_a_hang(entries: list[CachedCase]) -> None:
    sampler = ResumableSampler(5, batch_size=3, seed=0, steps=4)
    loader = training_loader(entries, chain(Dying("image")), sampler=sampler, workers=2, seed=0)
    with pytest.raises(SegNetrError, match=r"loading worker ended unexpectedly.*--workers 0") as e:
        list(loader)
    assert "\n" not in str(e.value)


def test_sampler_of_another_size_is_refused(entries: list[CachedCase]) -> None:
    sampler = ResumableSampler(4, batch_size=3, seed=0, steps=4)
    with pytest.raises(ValueError, match="4 rows for 5 cases"):
        training_loader(entries, chain(), sampler=sampler, workers=0, seed=0)


@pytest.mark.slow
def test_training_and_second_start_decode_no_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = []
    for number in range(3):
        image, mask = tmp_path / f"{number}.jpg", tmp_path / f"{number}.png"
        draw = np.random.default_rng(number)
        Image.fromarray(draw.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(image)
        Image.fromarray((draw.random((60, 80)) < 0.5).astype(np.uint8) * 255).save(mask)
        cases.append(Case(case_id=str(number), image=image, mask=mask))
    settings = CacheSettings(side=40, channels=3, classes=2)
    first = build_cache(cases, settings, folder=tmp_path / "cache", workers=2)

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("an original was opened after the cache was built")

    for name in ("read_image", "read_ground_truth", "hash_cached_file"):
        monkeypatch.setattr(cache_module, name, refuse)
    second = build_cache(cases, settings, folder=tmp_path / "cache", workers=0)
    assert second == first
    for case in cases:
        assert case.mask is not None
        case.image.unlink()
        case.mask.unlink()
    batches = load(list(second.entries.values()), workers=2, steps=5)  # five epochs of three
    assert {case_id for batch in batches for case_id in batch["case_id"]} == {"0", "1", "2"}

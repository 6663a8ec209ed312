"""Batches of labeled images depend only on (seed, step, rank)."""

import numpy as np
import pytest
import torch
from PIL import Image

from segnetr.config.schema.classification_recipe import ClassificationAugmentConfig, MixingConfig
from segnetr.config.schema.segmentation import IntensityConfig
from segnetr.data.augmentation.mixup import BatchMixer
from segnetr.data.cache.classification import ImageSettings, cache_images
from segnetr.data.classification.case import ClassificationCase
from segnetr.data.classification.loaders import (
    ClassificationDataset,
    EvalTransform,
    TrainTransform,
    classification_evaluation_batches,
    classification_training_batches,
    load_image,
)
from segnetr.data.loading.loaders import ResumableSampler
from segnetr.errors import ReadError

COUNT, CLASSES, SIZE = 10, 3, (32, 32)
GRAY = IntensityConfig(mean=(0.5,), std=(0.25,))


def make_cases(count: int = COUNT) -> list[ClassificationCase]:
    generator = np.random.default_rng(0)
    return [
        ClassificationCase(
            case_id=f"c{i}",
            image=generator.integers(0, 256, (28, 28, 1)).astype(np.uint8),
            labels=(i % CLASSES,),
        )
        for i in range(count)
    ]


def make_images(transform, cases=None, *, kind="single") -> ClassificationDataset:
    return ClassificationDataset(
        make_cases() if cases is None else cases,
        classes=CLASSES,
        kind=kind,
        channels=1,
        max_pixels=10**6,
        transform=transform,
        intensity=GRAY,
        seed=5,
    )


def train_batches(*, start: int = 0, workers: int = 0, mixing: MixingConfig | None = None):
    config = ClassificationAugmentConfig(brightness=0.2, erasing_probability=0.5)
    transform = TrainTransform(config, image_size=SIZE, channels=1)
    sampler = ResumableSampler(COUNT, batch_size=4, seed=5, steps=6, start_step=start)
    return list(
        classification_training_batches(
            make_images(transform),
            sampler=sampler,
            workers=workers,
            mixer=BatchMixer(mixing, CLASSES) if mixing else None,
            cases_per_step=4,
        )
    )


def assert_equal(one, other):
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert first["case_id"] == second["case_id"]
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["label"], second["label"])


MIXING = MixingConfig(mixup_alpha=0.8, cutmix_alpha=1.0)


@pytest.mark.parametrize("mixing", [None, MIXING])
def test_batches_of_a_resumed_run_equal_those_of_the_unbroken_run(mixing):
    whole = train_batches(mixing=mixing)
    assert_equal(whole[2:], train_batches(start=2, mixing=mixing))


def test_batches_do_not_depend_on_the_number_of_workers():
    assert_equal(train_batches(mixing=MIXING), train_batches(mixing=MIXING, workers=2))


def test_mixed_labels_sum_to_one_and_stop_at_the_configured_epoch():
    mixed = train_batches(mixing=MixingConfig(mixup_alpha=0.8, off_epoch=1))
    assert any(((b["label"] > 0) & (b["label"] < 1)).any() for b in mixed)
    assert all(torch.allclose(b["label"].sum(dim=1), torch.ones(4)) for b in mixed)
    # Ten cases in steps of four: from the third step on (places 12 to 15) it is the second epoch.
    plain = train_batches()
    assert all(
        torch.equal(m["image"], p["image"]) for m, p in zip(mixed[3:], plain[3:], strict=True)
    )


def test_augmentation_differs_between_epochs():
    batches = train_batches()
    seen: dict[str, list[torch.Tensor]] = {}
    for batch in batches:
        for case_id, image in zip(batch["case_id"], batch["image"], strict=True):
            seen.setdefault(case_id, []).append(image)
    twice = [images for images in seen.values() if len(images) > 1]
    assert twice
    assert all(not torch.equal(first, second) for first, second, *_ in twice)


def test_evaluation_yields_each_case_once_in_order_and_normalized():
    images = make_images(EvalTransform(ClassificationAugmentConfig(), image_size=SIZE))
    batches = list(classification_evaluation_batches(images, batch_size=4, workers=0))
    assert [len(b["case_id"]) for b in batches] == [4, 4, 2]
    assert [i for b in batches for i in b["case_id"]] == [f"c{i}" for i in range(COUNT)]
    assert torch.cat([b["label"] for b in batches]).tolist() == [i % 3 for i in range(COUNT)]
    images = torch.cat([b["image"] for b in batches])
    assert images.shape == (COUNT, 1, *SIZE)
    assert images.dtype == torch.float32
    assert -2.01 <= float(images.min()) < float(images.max()) <= 2.01


def test_multi_labels_become_rows_of_zeros_and_ones():
    image = np.zeros((28, 28, 1), np.uint8)
    cases = [
        ClassificationCase(case_id="a", image=image, labels=(0, 2)),
        ClassificationCase(case_id="b", image=image, labels=()),
    ]
    images = make_images(
        EvalTransform(ClassificationAugmentConfig(), image_size=SIZE), cases, kind="multi"
    )
    (batch,) = classification_evaluation_batches(images, batch_size=4, workers=0)
    assert batch["label"].tolist() == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_file_is_raised_as_a_one_line_error(tmp_path, workers):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    cases = [ClassificationCase(case_id="a", image=tmp_path / "a.png", labels=(0,))]
    images = make_images(EvalTransform(ClassificationAugmentConfig(), image_size=SIZE), cases)
    with pytest.raises(ReadError, match=r"a\.png"):
        list(classification_evaluation_batches(images, batch_size=1, workers=workers))


def test_copies_are_downsampled_reused_and_issues_are_reported(tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    Image.fromarray(rows).save(tmp_path / "big.png")
    Image.fromarray(rows[:20, :20]).save(tmp_path / "small.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "big.png").read_bytes()[:-40])
    files = [(name, tmp_path / f"{name}.png") for name in ("big", "small", "torn", "gone")]
    settings = ImageSettings(side=45, channels=3)
    seen = []
    copies, issues = cache_images(
        files,
        settings,
        folder=tmp_path / "cache",
        workers=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert sorted(copies) == ["big", "small"]
    assert [(issue.case_id, issue.kind) for issue in issues] == [
        ("gone", "image-unreadable"),
        ("torn", "image-unreadable"),
    ]
    assert seen[-1] == (4, 4)
    shapes = {
        name: load_image(
            ClassificationCase(case_id=name, image=copy, labels=()), channels=3, max_pixels=10**6
        ).shape
        for name, copy in copies.items()
    }
    assert shapes == {"big": (45, 60, 3), "small": (20, 20, 3)}
    stamps = {name: copy.path.stat().st_mtime_ns for name, copy in copies.items()}
    again, _ = cache_images(files, settings, folder=tmp_path / "cache", workers=0)
    assert {name: copy.path.stat().st_mtime_ns for name, copy in again.items()} == stamps
    copies["big"].path.write_bytes(b"broken")
    repaired, _ = cache_images(files, settings, folder=tmp_path / "cache", workers=0)
    assert np.load(repaired["big"]).shape == (45, 60, 3)


def test_16_bit_images_are_scaled_and_volumes_refused(tmp_path):
    deep = np.full((8, 8), 65535, np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    case = ClassificationCase(case_id="deep", image=tmp_path / "deep.png", labels=())
    image = load_image(case, channels=1, max_pixels=1000)
    assert image.dtype == np.float32
    assert image.max() == 1.0

"""Deterministic loading of labeled images as batches of plain tensors.

The number of workers does not change the batches.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segnetr.config.schema.classification_recipe import ClassificationAugmentConfig
from segnetr.config.schema.segmentation import IntensityConfig
from segnetr.data.augmentation.classification import (
    build_classification_augmentation,
    build_classification_evaluation,
)
from segnetr.data.augmentation.mixup import mixing_generator
from segnetr.data.augmentation.transforms import load_cached
from segnetr.data.cache.arrays import CachedArray
from segnetr.data.case import Batch
from segnetr.data.classification.case import ClassificationCase, LabelKind, encode_labels
from segnetr.data.loading.loaders import (
    ResumableSampler,
    SampleKey,
    Samples,
    add_messages,
    build_loader,
)
from segnetr.data.preprocessing.intensity import check_channels, normalize
from segnetr.data.readers.read_files import read_image
from segnetr.errors import ReadError

_ImageArray = NDArray[Any]
ImageTransform = Callable[[_ImageArray, int], _ImageArray]


class Mixer(Protocol):
    """Mixes the images of a batch and their labels, as in mixup and CutMix."""

    def __call__(
        self, images: Tensor, targets: Tensor, *, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mix images (N, C, H, W) and labels (N,) or (N, K), and return labels (N, K)."""
        ...


class ClassificationDataset:
    """A dataset whose samples depend only on (seed, epoch, row).

    Args:
        cases: One per row.
        classes: Number of classes K.
        kind: "single" or "multi" label.
        channels: Channels of the images.
        max_pixels: Larger files are refused.
        transform: From an image and a seed to an image of the network's input size.
        intensity: How values are normalized.
        seed: Seed of the run.
    """

    def __init__(
        self,
        cases: Sequence[ClassificationCase],
        *,
        classes: int,
        kind: LabelKind,
        channels: int,
        max_pixels: int,
        transform: ImageTransform,
        intensity: IntensityConfig,
        seed: int = 0,
    ) -> None:
        check_channels(intensity, channels)
        self._cases, self._channels, self._max_pixels = cases, channels, max_pixels
        self._labels = encode_labels(cases, classes=classes, kind=kind)
        self._kind, self._transform, self._intensity, self._seed = kind, transform, intensity, seed

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        """Return one sample. A plain integer is a row in epoch 0.

        Raises:
            ReadError: If its file cannot be read.
        """
        key = key if isinstance(key, SampleKey) else SampleKey(0, key)
        case = self._cases[key.row]
        messages: list[str] = []
        image = load_image(
            case, channels=self._channels, max_pixels=self._max_pixels, on_repair=messages.append
        )
        transformed = self._transform(image, key.seed(self._seed))
        values = normalize(transformed, self._intensity).transpose(2, 0, 1)
        label = torch.tensor(self._labels[key.row])
        return {
            "image": torch.from_numpy(np.ascontiguousarray(values)),
            "label": label if self._kind == "single" else label.float(),
            "case_id": case.case_id,
            "messages": messages,
        }


def load_image(
    case: ClassificationCase,
    *,
    channels: int,
    max_pixels: int,
    on_repair: Callable[[str], None] = lambda _line: None,
) -> _ImageArray:
    """Return a case's image (H, W, C): from memory, from its cached copy, or decoded.

    `on_repair` receives one line if the cached copy was damaged and was decoded again.

    Raises:
        ReadError: If its file cannot be read, or is not an image.
    """
    if isinstance(case.image, CachedArray):
        return load_cached(case.image, case_id=case.case_id, on_repair=on_repair)
    if not isinstance(case.image, Path):
        return case.image
    image = read_image(case.image, channels=channels, max_pixels=max_pixels)
    if image.kind != "image":
        raise ReadError(case.image, "it is a volume; an image is expected")
    if image.array.dtype == np.uint16:
        return image.array.astype(np.float32) * np.float32(1 / 65535)
    return image.array if image.array.dtype == np.uint8 else image.array.astype(np.float32)


class EvalTransform:
    """Resizes an image to the network's input size, without randomness.

    Args:
        config: Crop and interpolation.
        image_size: (height, width) in pixels.
    """

    def __init__(self, config: ClassificationAugmentConfig, *, image_size: tuple[int, int]) -> None:
        self._pipeline = build_classification_evaluation(config, image_size=image_size)

    def __call__(self, image: _ImageArray, _seed: int = 0) -> _ImageArray:
        """Resize an image (H, W, C)."""
        resized: _ImageArray = self._pipeline(image=np.ascontiguousarray(image))["image"]
        return resized


class TrainTransform:
    """Augments an image, with random numbers that depend only on a seed.

    Args:
        config: The recipe.
        image_size: (height, width) in pixels of the result.
        channels: Channels of the images.
    """

    def __init__(
        self, config: ClassificationAugmentConfig, *, image_size: tuple[int, int], channels: int
    ) -> None:
        self._pipeline = build_classification_augmentation(
            config, image_size=image_size, channels=channels
        )

    def __call__(self, image: _ImageArray, seed: int) -> _ImageArray:
        """Augment an image (H, W, C)."""
        # Not set_random_seed, which gives all transforms the same seed.
        self._pipeline.set_random_state(
            np.random.Generator(np.random.PCG64(seed)), random.Random(seed)
        )
        augmented: _ImageArray = self._pipeline(image=np.ascontiguousarray(image))["image"]
        return augmented


def collate_classification(samples: Samples) -> Batch | ReadError:
    """Collate samples to a batch, or return the first error among them."""
    valid = []
    for sample in samples:
        if isinstance(sample, ReadError):
            return sample
        valid.append(sample)
    batch = Batch(
        image=torch.stack([sample["image"] for sample in valid]),
        label=torch.stack([sample["label"] for sample in valid]),
        case_id=[sample["case_id"] for sample in valid],
    )
    return add_messages(batch, valid)


def classification_training_batches(
    images: ClassificationDataset,
    *,
    sampler: ResumableSampler,
    workers: int,
    mixer: Mixer | None,
    cases_per_step: int,
    on_message: Callable[[str], None] | None = None,
) -> Iterator[Batch]:
    """Yield training batches from the sampler's first step to its last.

    The random numbers for mixing depend only on (seed, step, rank), so a resumed run mixes the same
    images as an unbroken one.

    Args:
        images: The samples.
        sampler: Determines the rows of each batch.
        workers: Loading processes. 0 loads in this process. The batches are bit-identical.
        mixer: Mixes a batch. None: no mixing.
        cases_per_step: Cases per step over all processes, to compute the epoch for the mixer.
        on_message: As in `segnetr.data.loading.loaders.CaseLoader`.
    """
    loader = build_loader(
        images,
        workers=workers,
        collate=collate_classification,
        on_message=on_message,
        batch_sampler=sampler,
    )
    for step, batch in enumerate(loader, start=sampler.start_step):
        if mixer is not None:
            generator = mixing_generator(sampler.seed, step=step, rank=sampler.rank)
            image, label = mixer(
                batch["image"],
                batch["label"],
                epoch=step * cases_per_step // sampler.size,
                generator=generator,
            )
            yield Batch(image=image, label=label, case_id=batch["case_id"])
        else:
            yield batch


def classification_evaluation_batches(
    images: ClassificationDataset,
    *,
    batch_size: int,
    workers: int,
    on_message: Callable[[str], None] | None = None,
) -> Iterable[Batch]:
    """Return batches of all cases, each once and in order. The last batch may be smaller."""
    return build_loader(
        images,
        workers=workers,
        collate=collate_classification,
        on_message=on_message,
        batch_size=batch_size,
    )

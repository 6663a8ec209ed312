"""Labeled images in, batches of plain tensors out, whatever the number of workers."""

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
from segnetr.data.case import Batch
from segnetr.data.classification.case import ClassificationCase, LabelKind, encode_labels
from segnetr.data.loading.loaders import ResumableSampler, SampleKey, Samples, build_loader
from segnetr.data.preprocessing.intensity import check_channels, normalize
from segnetr.data.readers.read_files import read_image
from segnetr.errors import ReadError

ImageArray = NDArray[Any]
Transform = Callable[[ImageArray, int], ImageArray]


class Mixer(Protocol):
    """Mixes the images of a batch and their labels, as mixup and cutmix do."""

    def __call__(
        self, images: Tensor, targets: Tensor, *, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mix images (N, C, H, W) and labels (N,) or (N, K); gives labels (N, K)."""
        ...


class ClassificationDataset:
    """Samples as a function of (seed, epoch, row) and of nothing else.

    Args:
        cases: One for each row.
        classes: Number of classes K.
        kind: Whether a case has one label or several.
        channels: Channels of the images.
        max_pixels: Larger files are refused.
        change: From a image and the seed of its use to one of the network's size.
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
        change: Transform,
        intensity: IntensityConfig,
        seed: int = 0,
    ) -> None:
        check_channels(intensity, channels)
        self._cases, self._channels, self._max_pixels = cases, channels, max_pixels
        self._labels = encode_labels(cases, classes=classes, kind=kind)
        self._kind, self._change, self._intensity, self._seed = kind, change, intensity, seed

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        """Give one sample; a plain number is a row in epoch 0.

        Raises:
            ReadError: If its file cannot be read.
        """
        key = key if isinstance(key, SampleKey) else SampleKey(0, key)
        case = self._cases[key.row]
        image = load_image(case, channels=self._channels, max_pixels=self._max_pixels)
        changed = self._change(image, key.seed(self._seed))
        values = normalize(changed, self._intensity).transpose(2, 0, 1)
        label = torch.tensor(self._labels[key.row])
        return {
            "image": torch.from_numpy(np.ascontiguousarray(values)),
            "label": label if self._kind == "single" else label.float(),
            "case_id": case.case_id,
        }


def load_image(case: ClassificationCase, *, channels: int, max_pixels: int) -> ImageArray:
    """Give a case's image (H, W, C): from memory, from its copy, or decoded.

    Raises:
        ReadError: If its file cannot be read, or is no image.
    """
    if not isinstance(case.image, Path):
        return case.image
    if case.image.suffix == ".npy":
        return load_cached(case.image, case_id=case.case_id)
    image = read_image(case.image, channels=channels, max_pixels=max_pixels)
    if image.kind != "image":
        raise ReadError(case.image, "it is a volume where a image is expected")
    if image.array.dtype == np.uint16:
        return image.array.astype(np.float32) * np.float32(1 / 65535)
    return image.array if image.array.dtype == np.uint8 else image.array.astype(np.float32)


class EvalTransform:
    """Brings a image to the network's size, without randomness.

    Args:
        config: How it is fitted.
        image_size: (height, width) in pixels.
    """

    def __init__(self, config: ClassificationAugmentConfig, *, image_size: tuple[int, int]) -> None:
        self._pipeline = build_classification_evaluation(config, image_size=image_size)

    def __call__(self, image: ImageArray, _seed: int = 0) -> ImageArray:
        """Fit a image (H, W, C)."""
        fitted: ImageArray = self._pipeline(image=np.ascontiguousarray(image))["image"]
        return fitted


class TrainTransform:
    """Changes a image by the recipe, with random numbers that are a function of a seed.

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

    def __call__(self, image: ImageArray, seed: int) -> ImageArray:
        """Change a image (H, W, C)."""
        # Not set_random_seed: it gives all transforms one seed.
        self._pipeline.set_random_state(
            np.random.Generator(np.random.PCG64(seed)), random.Random(seed)
        )
        changed: ImageArray = self._pipeline(image=np.ascontiguousarray(image))["image"]
        return changed


def collate_classification(samples: Samples) -> Batch | ReadError:
    """Put samples together; a sample that could not be read takes the batch's place."""
    good = []
    for sample in samples:
        if isinstance(sample, ReadError):
            return sample
        good.append(sample)
    return Batch(
        image=torch.stack([sample["image"] for sample in good]),
        label=torch.stack([sample["label"] for sample in good]),
        case_id=[sample["case_id"] for sample in good],
    )


def classification_training_batches(
    images: ClassificationDataset,
    *,
    sampler: ResumableSampler,
    workers: int,
    mixer: Mixer | None,
    cases_per_step: int,
) -> Iterator[Batch]:
    """Give training batches from the sampler's first step to its last.

    A batch is mixed with random numbers that are a function of (seed, step, rank): a resumed run
    mixes what the unbroken one would have mixed.

    Args:
        images: The samples.
        sampler: Which rows in which batch.
        workers: Loading processes; 0 loads in this one. The batches are equal to the bit.
        mixer: Mixes a batch; None: batches stay as they are.
        cases_per_step: Cases that all processes take in a step, for the mixer's calendar.
    """
    loader = build_loader(
        images, workers=workers, collate=collate_classification, batch_sampler=sampler
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
    images: ClassificationDataset, *, batch_size: int, workers: int
) -> Iterable[Batch]:
    """Give all cases, each once, in order; the last batch may be smaller."""
    return build_loader(
        images, workers=workers, collate=collate_classification, batch_size=batch_size
    )

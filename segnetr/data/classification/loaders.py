"""Labelled pictures in, batches of plain tensors out, whatever the number of workers."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segnetr.config.schema.classification_recipe import LabelledAugmentConfig
from segnetr.config.schema.segmentation import IntensityConfig
from segnetr.data.augmentation.classification import (
    build_labelled_augmentation,
    build_labelled_evaluation,
)
from segnetr.data.augmentation.mixup import mixing_generator
from segnetr.data.augmentation.transforms import load_cached
from segnetr.data.case import Batch
from segnetr.data.classification.case import LabelKind, LabelledCase, encode_labels
from segnetr.data.loading.loaders import Samples, build_loader
from segnetr.data.loading.sampler import ResumableSampler, SampleKey
from segnetr.data.preprocessing.intensity import check_channels, normalise
from segnetr.data.readers.read_files import read_image
from segnetr.errors import ReadError

Picture = NDArray[Any]
Change = Callable[[Picture, int], Picture]


class Mixer(Protocol):
    """Mixes the pictures of a batch and their labels, as mixup and cutmix do."""

    def __call__(
        self, images: Tensor, targets: Tensor, *, epoch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Mix images (N, C, H, W) and labels (N,) or (N, K); gives labels (N, K)."""
        ...


class LabelledPictures:
    """Samples as a function of (seed, epoch, row) and of nothing else.

    Args:
        cases: One for each row.
        classes: Number of classes K.
        kind: Whether a case has one label or several.
        channels: Channels of the pictures.
        max_pixels: Larger files are refused.
        change: From a picture and the seed of its use to one of the network's size.
        intensity: How values are normalised.
        seed: Seed of the run.
    """

    def __init__(
        self,
        cases: Sequence[LabelledCase],
        *,
        classes: int,
        kind: LabelKind,
        channels: int,
        max_pixels: int,
        change: Change,
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
        picture = load_picture(case, channels=self._channels, max_pixels=self._max_pixels)
        changed = self._change(picture, key.seed(self._seed))
        values = normalise(changed, self._intensity).transpose(2, 0, 1)
        label = torch.tensor(self._labels[key.row])
        return {
            "image": torch.from_numpy(np.ascontiguousarray(values)),
            "label": label if self._kind == "single" else label.float(),
            "case_id": case.case_id,
        }


def load_picture(case: LabelledCase, *, channels: int, max_pixels: int) -> Picture:
    """Give a case's picture (H, W, C): from memory, from its copy, or decoded.

    Raises:
        ReadError: If its file cannot be read, or is no picture.
    """
    if not isinstance(case.picture, Path):
        return case.picture
    if case.picture.suffix == ".npy":
        return load_cached(case.picture, case_id=case.case_id)
    image = read_image(case.picture, channels=channels, max_pixels=max_pixels)
    if image.kind != "picture":
        raise ReadError(case.picture, "it is a volume where a picture is expected")
    if image.array.dtype == np.uint16:
        return image.array.astype(np.float32) * np.float32(1 / 65535)
    return image.array if image.array.dtype == np.uint8 else image.array.astype(np.float32)


class FitOnly:
    """Brings a picture to the network's size, without randomness.

    Args:
        config: How it is fitted.
        image_size: (height, width) in pixels.
    """

    def __init__(self, config: LabelledAugmentConfig, *, image_size: tuple[int, int]) -> None:
        self._pipeline = build_labelled_evaluation(config, image_size=image_size)

    def __call__(self, picture: Picture, _seed: int = 0) -> Picture:
        """Fit a picture (H, W, C)."""
        fitted: Picture = self._pipeline(image=np.ascontiguousarray(picture))["image"]
        return fitted


class ChangeAtRandom:
    """Changes a picture by the recipe, with random numbers that are a function of a seed.

    Args:
        config: The recipe.
        image_size: (height, width) in pixels of the result.
        channels: Channels of the pictures.
    """

    def __init__(
        self, config: LabelledAugmentConfig, *, image_size: tuple[int, int], channels: int
    ) -> None:
        self._pipeline = build_labelled_augmentation(
            config, image_size=image_size, channels=channels
        )

    def __call__(self, picture: Picture, seed: int) -> Picture:
        """Change a picture (H, W, C)."""
        # Not set_random_seed: it gives all transforms one seed.
        self._pipeline.set_random_state(
            np.random.Generator(np.random.PCG64(seed)), random.Random(seed)
        )
        changed: Picture = self._pipeline(image=np.ascontiguousarray(picture))["image"]
        return changed


def collate_labelled(samples: Samples) -> Batch | ReadError:
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


def labelled_training_batches(
    pictures: LabelledPictures,
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
        pictures: The samples.
        sampler: Which rows in which batch.
        workers: Loading processes; 0 loads in this one. The batches are equal to the bit.
        mixer: Mixes a batch; None: batches stay as they are.
        cases_per_step: Cases that all processes take in a step, for the mixer's calendar.
    """
    loader = build_loader(
        pictures, workers=workers, collate=collate_labelled, batch_sampler=sampler
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


def labelled_evaluation_batches(
    pictures: LabelledPictures, *, batch_size: int, workers: int
) -> Iterable[Batch]:
    """Give all cases, each once, in order; the last batch may be smaller."""
    return build_loader(pictures, workers=workers, collate=collate_labelled, batch_size=batch_size)

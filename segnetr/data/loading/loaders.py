"""Loaders: cached cases in, batches of plain tensors out, whatever the number of workers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, SupportsIndex

import cv2
import torch
from monai.data import Dataset
from monai.transforms import Randomizable
from torch.utils.data import DataLoader, default_collate

from segnetr.data.cache.segmentation import CachedCase
from segnetr.data.case import Batch
from segnetr.data.loading.sampler import ResumableSampler, SampleKey
from segnetr.data.loading.volume_slices import CachedSlice
from segnetr.errors import ReadError, SegNetrError

Sample = CachedCase | CachedSlice
Transform = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Samples = Sequence[Mapping[str, Any] | ReadError]
Collate = Callable[[Samples], Batch | ReadError]


class SampleSource(Protocol):
    """Samples by key, as many as there are cases."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: SampleKey | int) -> Mapping[str, Any]: ...


class SeededDataset(Dataset):  # type: ignore[misc]
    """A MONAI data set whose items are a function of (seed, epoch, row) and of nothing else.

    Args:
        entries: The cached images, or slices of volumes, one for each row.
        transform: From the dictionary of a cached case to that of a sample; every MONAI
            `Randomizable` in it is seeded anew before each item.
        seed: Seed of the run.
    """

    def __init__(self, entries: Sequence[Sample], transform: Transform, *, seed: int = 0) -> None:
        data = [
            {"image": entry.image, "mask": entry.mask, "case_id": entry.case_id}
            for entry in entries
        ]
        super().__init__(data, transform)
        self.seed = seed

    def __getitem__(self, key: SampleKey | SupportsIndex) -> Mapping[str, Any]:
        """Give one sample; a plain number is a row in epoch 0.

        Raises:
            ReadError: If a cached copy cannot be read.
            RuntimeError: If a transform fails; the message names the case and its cached copy.
        """
        if not isinstance(key, SampleKey):
            key = SampleKey(0, range(len(self))[key])
        case = self.data[key.row]
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=key.seed(self.seed))
        try:
            sample: Mapping[str, Any] = self.transform(dict(case))
        except RuntimeError as error:
            # MONAI turns whatever a transform raises into a RuntimeError that names the transform.
            if isinstance(error.__cause__, ReadError):
                raise error.__cause__ from None
            raise RuntimeError(
                f"case {case['case_id']} ({case['image']}): {error}: {error.__cause__}"
            ) from error
        return sample


class CaseLoader(DataLoader[Batch]):
    """A loader that hands a worker's error to its user as it was, on one line.

    torch would wrap it into a text with the worker's traceback.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Give batch after batch.

        Raises:
            ReadError: If a case could not be read; the message names it.
            SegNetrError: If a worker was killed.
        """
        batches: Iterator[Batch | ReadError] = super().__iter__()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if not str(error).startswith("DataLoader worker"):
                    raise
                raise SegNetrError(
                    f"a loading worker ended unexpectedly ({str(error).splitlines()[0]}): out of "
                    "memory, or killed; try fewer workers (--workers 0 loads without)"
                ) from error
            if isinstance(batch, ReadError):
                raise batch
            yield batch


def training_loader(
    entries: Sequence[Sample],
    transform: Transform,
    *,
    sampler: ResumableSampler,
    workers: int,
    seed: int,
) -> CaseLoader:
    """Build the loader of training batches.

    Args:
        entries: The cached images, or slices of volumes; row i of the sampler is entry i.
        transform: See `segnetr.data.augmentation.transforms.training_transform`.
        sampler: Which rows in which batch; its size is the number of entries.
        workers: Loading processes; 0 loads in this one. The batches are equal to the bit.
        seed: Seed of the augmentation.

    Returns:
        From the sampler's first step to its last.

    Raises:
        ValueError: If the sampler was made for another number of cases.
    """
    if sampler.size != len(entries):
        raise ValueError(f"the sampler has {sampler.size} rows for {len(entries)} cases")
    dataset = SeededDataset(entries, transform, seed=seed)
    return build_loader(dataset, workers=workers, batch_sampler=sampler)


def evaluation_loader(
    entries: Sequence[CachedCase], transform: Transform, *, batch_size: int, workers: int
) -> CaseLoader:
    """Build the loader of all cases, each once, in order; the last batch may be smaller.

    Args:
        entries: The cached cases.
        transform: See `segnetr.data.augmentation.transforms.evaluation_transform`.
        batch_size: Cases in one batch.
        workers: Loading processes; 0 loads in this one.
    """
    dataset = SeededDataset(entries, transform)
    return build_loader(dataset, workers=workers, batch_size=batch_size)


def collate_batch(samples: Samples) -> Batch | ReadError:
    """Put samples together; a sample that could not be read takes the batch's place.

    Returns:
        image (N, C, H, W) float32, mask (N, 1, H, W) int64 and N case ids, or the first error.
    """
    good: list[Mapping[str, Any]] = []
    for sample in samples:
        if isinstance(sample, ReadError):
            return sample
        good.append(sample)
    # default_collate writes straight into shared memory in a worker.
    return Batch(
        image=default_collate([sample["image"] for sample in good]),
        mask=default_collate([sample["mask"] for sample in good]),
        case_id=[sample["case_id"] for sample in good],
    )


class _ErrorsAsSamples(torch.utils.data.Dataset[Any]):
    """Gives a `ReadError` back instead of raising it, so that it leaves the worker unchanged."""

    def __init__(self, dataset: SampleSource) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey | int) -> Mapping[str, Any] | ReadError:
        try:
            sample: Mapping[str, Any] = self.dataset[key]
        except ReadError as error:
            return error
        return sample


def build_loader(
    dataset: SampleSource, *, workers: int, collate: Collate = collate_batch, **order: Any
) -> CaseLoader:
    """Build a loader whose iterators draw nothing from the global random generators.

    Args:
        dataset: Gives a sample for a key.
        workers: Loading processes; 0 loads in this one.
        collate: From samples, or the errors in their place, to a batch.
        **order: `batch_sampler`, or `batch_size`.
    """
    return CaseLoader(
        _ErrorsAsSamples(dataset),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        # A new iterator draws its workers' seed; from the global generator it would move that one.
        generator=torch.Generator(),
        persistent_workers=workers > 0,
        # Threads of OpenCV do not survive a fork, and would fight over the cores.
        worker_init_fn=_start_worker,
        **order,
    )


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)

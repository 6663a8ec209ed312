"""Deterministic loading: which case is used at which step, and the batches of plain tensors.

A sample is a function of (seed, epoch, row), and a step's rows are a function of (seed, step, rank,
world). The number of workers changes neither, and a resumed run sees what an unbroken one sees.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, SupportsIndex

import cv2
import numpy as np
import torch
from monai.data import Dataset
from monai.transforms import Randomizable
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler, default_collate

from segnetr.data.cache.segmentation import CachedCase
from segnetr.data.case import Batch
from segnetr.data.loading.stop_signals import block_stop_signals
from segnetr.data.loading.volume_slices import CachedSlice
from segnetr.errors import ReadError, SegNetrError

Sample = CachedCase | CachedSlice
CaseTransform = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Samples = Sequence[Mapping[str, Any] | ReadError]
Collate = Callable[[Samples], Batch | ReadError]


class SampleKey(NamedTuple):
    """One use of one case.

    Attributes:
        epoch: How often this case was used before, from 0. If each epoch uses each case once, this
            is the epoch.
        row: Row of the case, 0 to size - 1.
    """

    epoch: int
    row: int

    def seed(self, run_seed: int) -> int:
        """Return the 32-bit seed of this use, which determines its augmentation."""
        return int.from_bytes(_digest("sample", run_seed, *self)[:4], "little")


class ResumableSampler(Sampler[list[SampleKey]]):
    """Batches of sample keys that depend only on (seed, step, rank, world).

    Each epoch is a permutation of all rows, and the epochs are concatenated to one stream. In step
    s, rank r takes the batch_size positions from s * world * batch_size + r * batch_size. Therefore
    every batch is full, even if the size is not a multiple of the batch size or smaller; every
    epoch contains every case; ranks never share a position; a run resumed at a step sees the same
    batches as an unbroken run; and steps 2 s and 2 s + 1 of one process (two accumulated passes)
    see the same cases as step s of two processes.

    A step is one forward pass of one process. With gradient accumulation, an optimizer step
    consists of several.

    With `labels`, an epoch is a class-balanced order of the same length, see `balanced_rows`. All
    of the above holds, except that an epoch may not contain every case.

    Args:
        size: Number of cases.
        batch_size: Cases per batch and rank.
        seed: Seed of the permutations.
        rank: This process, 0 to world - 1.
        world: Number of processes.
        start_step: First step, for resumed runs.
        steps: Steps of the whole run. The last step is steps - 1.
        labels: The class of each row, to use each class equally often. None: each row once.

    Raises:
        ValueError: If a number is out of range, or the number of labels is not `size`.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        seed: int,
        steps: int,
        rank: int = 0,
        world: int = 1,
        start_step: int = 0,
        labels: Sequence[int] | None = None,
    ) -> None:
        if size < 1 or batch_size < 1:
            raise ValueError(f"size {size} and batch_size {batch_size} must be at least 1")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not in 0..{world - 1}")
        if start_step < 0:
            raise ValueError(f"start_step {start_step} is negative")
        if labels is not None and len(labels) != size:
            raise ValueError(f"{len(labels)} labels for {size} rows")
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.start_step = start_step
        self.steps = steps
        self.labels = labels

    def __len__(self) -> int:
        return max(0, self.steps - self.start_step)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch = -1
        order: Callable[[int], SampleKey]
        for step in range(self.start_step, self.steps):
            first = (step * self.world + self.rank) * self.batch_size
            keys = []
            for position in range(first, first + self.batch_size):
                position_epoch, offset = divmod(position, self.size)
                if position_epoch != epoch:
                    epoch, order = position_epoch, self._order(position_epoch)
                keys.append(order(offset))
            yield keys

    def _order(self, epoch: int) -> Callable[[int], SampleKey]:
        """Return a function from the position in an epoch to its key."""
        if self.labels is not None:
            return balanced_rows(self.labels, seed=self.seed, epoch=epoch).__getitem__
        rows = permute_rows(self.size, seed=self.seed, epoch=epoch)
        return lambda offset: SampleKey(epoch, int(rows[offset]))


def permute_rows(size: int, *, seed: int, epoch: int) -> NDArray[np.intp]:
    """Return the order of all rows in one epoch.

    Sorts the raw stream of PCG64 instead of calling `Generator.permutation`, because numpy
    guarantees the raw stream for all versions, but not the result of the method.

    Returns:
        (size,) a permutation of 0..size - 1.
    """
    return _permute(size, "order", seed, epoch)


def balanced_rows(labels: Sequence[int], *, seed: int, epoch: int) -> list[SampleKey]:
    """Return the order of one epoch in which each class occurs equally often.

    The epoch has one position per row. It consists of rounds in which each class occurs once, in
    random order. The last round may be incomplete, and over the epochs each class is left out of it
    equally often. The rows of a class follow a stream of permutations that continues from epoch to
    epoch, so no row is used again before all rows of its class have been used.

    Args:
        labels: The class of each row.
        seed: Seed of the orders.
        epoch: From 0.

    Returns:
        One key per row of the dataset. Its `epoch` counts the previous uses of that row, so a row
        that occurs twice in an epoch is augmented in two ways.
    """
    classes, members = np.unique(np.asarray(labels), return_inverse=True)
    rounds, rest = divmod(len(members), len(classes))
    boundaries = np.cumsum(np.bincount(members))[:-1]
    rows_by_class = np.split(np.argsort(members, kind="stable"), boundaries)
    streams = [
        # In each earlier epoch a class had `rounds` positions, and its share of the last rounds.
        _class_keys(
            rows_by_class[index],
            start=rounds * epoch + max(0, -(-(epoch * rest - index) // len(classes))),
            count=rounds + 1,
            seed=(seed, int(label)),
        )
        for index, label in enumerate(classes)
    ]
    keys = []
    for number in range(rounds):
        order = _permute(len(classes), "round", seed, epoch, number)
        keys += [streams[index][number] for index in order]
    last_round = [(epoch * rest + index) % len(classes) for index in range(rest)]
    order = _permute(rest, "round", seed, epoch, rounds)
    return keys + [streams[last_round[index]][rounds] for index in order]


def _class_keys(
    rows: NDArray[np.intp], *, start: int, count: int, seed: tuple[int, int]
) -> list[SampleKey]:
    """Return positions `start` to `start + count - 1` of the endless permutations of a class."""
    keys: list[SampleKey] = []
    use = start // len(rows)
    while len(keys) < start % len(rows) + count:
        order = rows[_permute(len(rows), "class", *seed, use)]
        keys += [SampleKey(use, int(row)) for row in order]
        use += 1
    return keys[start % len(rows) :][:count]


def _permute(size: int, purpose: str, *numbers: int) -> NDArray[np.intp]:
    entropy = int.from_bytes(_digest(purpose, *numbers), "little")
    keys = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(size)
    return np.argsort(keys, kind="stable")


def _digest(purpose: str, *numbers: int) -> bytes:
    # As text, so that negative and very large seeds work as well.
    text = "/".join([purpose, *map(str, numbers)])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class SampleSource(Protocol):
    """A dataset indexed by sample keys, with one row per case."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: SampleKey | int) -> Mapping[str, Any]: ...


class SeededDataset(Dataset):  # type: ignore[misc]
    """A MONAI dataset whose items depend only on (seed, epoch, row).

    Args:
        entries: The cached images, or slices of volumes, one per row.
        transform: From the dictionary of a cached case to a sample. If it is a MONAI
            `Randomizable`, it is seeded before each item.
        seed: Seed of the run.
    """

    def __init__(
        self, entries: Sequence[Sample], transform: CaseTransform, *, seed: int = 0
    ) -> None:
        data = [
            {"image": entry.image, "mask": entry.mask, "case_id": entry.case_id}
            for entry in entries
        ]
        super().__init__(data, transform)
        self.seed = seed

    def __getitem__(self, key: SampleKey | SupportsIndex) -> Mapping[str, Any]:
        """Return one sample. A plain integer is a row in epoch 0.

        Raises:
            ReadError: If a cached copy cannot be read.
            RuntimeError: If a transform fails. The message names the case and its cached copy.
        """
        if not isinstance(key, SampleKey):
            key = SampleKey(0, range(len(self))[key])
        case = self.data[key.row]
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=key.seed(self.seed))
        try:
            sample: Mapping[str, Any] = self.transform(dict(case))
        except RuntimeError as error:
            # MONAI wraps every error of a transform in a RuntimeError that names the transform.
            if isinstance(error.__cause__, ReadError):
                raise error.__cause__ from None
            raise RuntimeError(
                f"case {case['case_id']} ({case['image']}): {error}: {error.__cause__}"
            ) from error
        return sample


class CaseLoader(DataLoader[Batch]):
    """A loader that raises the original error of a worker, as one line.

    torch would wrap it in a text with the worker's traceback.

    Args:
        *args: As for `torch.utils.data.DataLoader`.
        on_message: Receives lines for the user, for example about a damaged copy in the cache.
        **kwargs: As for `torch.utils.data.DataLoader`.
    """

    def __init__(
        self, *args: Any, on_message: Callable[[str], None] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.on_message = on_message or (lambda _line: None)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yield the batches.

        Raises:
            ReadError: If a case cannot be read. The message names it.
            SegNetrError: If a worker was killed.
        """
        with block_stop_signals():
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
                    "memory, or killed; use fewer workers (--workers 0 uses none)"
                ) from error
            if isinstance(batch, ReadError):
                raise batch
            for line in batch.pop("messages", ()):
                self.on_message(line)
            yield batch


def training_loader(
    entries: Sequence[Sample],
    transform: CaseTransform,
    *,
    sampler: ResumableSampler,
    workers: int,
    seed: int,
    on_message: Callable[[str], None] | None = None,
) -> CaseLoader:
    """Build the loader of training batches, from the sampler's first step to its last.

    Args:
        entries: The cached images, or slices of volumes. Row i of the sampler is entry i.
        transform: See `segnetr.data.augmentation.transforms.training_transform`.
        sampler: Determines the rows of each batch. Its size is the number of entries.
        workers: Loading processes. 0 loads in this process. The batches are bit-identical.
        seed: Seed of the augmentation.
        on_message: As in `CaseLoader`.

    Raises:
        ValueError: If the sampler was created for another number of cases.
    """
    if sampler.size != len(entries):
        raise ValueError(f"the sampler has {sampler.size} rows for {len(entries)} cases")
    dataset = SeededDataset(entries, transform, seed=seed)
    return build_loader(dataset, workers=workers, batch_sampler=sampler, on_message=on_message)


def evaluation_loader(
    entries: Sequence[CachedCase],
    transform: CaseTransform,
    *,
    batch_size: int,
    workers: int,
    on_message: Callable[[str], None] | None = None,
) -> CaseLoader:
    """Build the loader of all cases, each once and in order. The last batch may be smaller.

    Args:
        entries: The cached cases.
        transform: See `segnetr.data.augmentation.transforms.evaluation_transform`.
        batch_size: Cases per batch.
        workers: Loading processes. 0 loads in this process.
        on_message: As in `CaseLoader`.
    """
    dataset = SeededDataset(entries, transform)
    return build_loader(dataset, workers=workers, batch_size=batch_size, on_message=on_message)


def collate_batch(samples: Samples) -> Batch | ReadError:
    """Collate samples to a batch, or return the first error among them.

    Returns:
        image (N, C, H, W) float32, mask (N, 1, H, W) int64 and N case ids, or the error.
    """
    valid: list[Mapping[str, Any]] = []
    for sample in samples:
        if isinstance(sample, ReadError):
            return sample
        valid.append(sample)
    # In a worker, default_collate writes directly to shared memory.
    batch = Batch(
        image=default_collate([sample["image"] for sample in valid]),
        mask=default_collate([sample["mask"] for sample in valid]),
        case_id=[sample["case_id"] for sample in valid],
    )
    return add_messages(batch, valid)


def add_messages(batch: Batch, samples: Sequence[Mapping[str, Any]]) -> Batch:
    """Add the messages of the samples to their batch."""
    messages = [line for sample in samples for line in sample.get("messages", ())]
    if messages:
        batch["messages"] = messages
    return batch


class _ErrorsAsSamples(torch.utils.data.Dataset[Any]):
    """Returns a `ReadError` instead of raising it, so that it leaves the worker unchanged."""

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
    dataset: SampleSource,
    *,
    workers: int,
    collate: Collate = collate_batch,
    on_message: Callable[[str], None] | None = None,
    **order: Any,
) -> CaseLoader:
    """Build a loader whose iterators do not use the global random generators.

    Args:
        dataset: Returns a sample for a key.
        workers: Loading processes. 0 loads in this process.
        collate: From samples, or errors in their place, to a batch.
        on_message: As in `CaseLoader`.
        **order: `batch_sampler` or `batch_size`.
    """
    return CaseLoader(
        _ErrorsAsSamples(dataset),
        num_workers=workers,
        collate_fn=collate,
        on_message=on_message,
        pin_memory=torch.cuda.is_available(),
        # A new iterator draws the seed of its workers. Without its own generator, it would advance
        # the global one.
        generator=torch.Generator(),
        persistent_workers=workers > 0,
        # OpenCV's threads do not survive a fork, and would compete for the cores.
        worker_init_fn=_start_worker,
        **order,
    )


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)

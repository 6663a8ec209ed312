"""Which case stands where in which step, by arithmetic alone."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


class SampleKey(NamedTuple):
    """One use of one case.

    Attributes:
        epoch: How often this case was used before, 0 at first; where each epoch shows each case
            once, the epoch.
        row: Which case, 0 to size - 1.
    """

    epoch: int
    row: int

    def seed(self, run_seed: int) -> int:
        """Give the 32-bit seed of this use: all that its augmentation depends on."""
        return int.from_bytes(_digest("sample", run_seed, *self)[:4], "little")


class ResumableSampler(Sampler[list[SampleKey]]):
    """Batches of sample keys as a function of (seed, step, rank, world) and of nothing else.

    Each epoch is a permutation of all rows, and the epochs stand one behind the other in one
    stream. Step s of rank r takes the places s * world * batch_size + r * batch_size and the
    batch_size - 1 behind it. So every batch is full, also where the size is no multiple of it or
    smaller than it; no case is left out of an epoch; ranks never share a place; a run resumed at
    a step sees what the unbroken run would have seen; and steps 2 s and 2 s + 1 of one process
    (two accumulated passes) see together what two processes see in step s.

    A step is one forward pass of one process: with accumulation an optimizer step is several.

    With `labels` an epoch is a class-balanced order of the same length, see `balanced_rows`; all
    of the above holds but that no case is left out of an epoch.

    Args:
        size: Number of cases.
        batch_size: Cases in one batch of one rank.
        seed: Of the permutations.
        rank: This process, 0 to world - 1.
        world: Number of processes.
        start_step: The first step to give; where a run is resumed.
        steps: Steps of the whole run; the last one given is steps - 1.
        labels: The class of each row, to show each class equally often; None: each row once.

    Raises:
        ValueError: If a number is out of its range, or there is not one label for each row.
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
            for place in range(first, first + self.batch_size):
                wanted, position = divmod(place, self.size)
                if wanted != epoch:
                    epoch, order = wanted, self._order(wanted)
                keys.append(order(position))
            yield keys

    def _order(self, epoch: int) -> Callable[[int], SampleKey]:
        """Give the key of each place in an epoch."""
        if self.labels is not None:
            return balanced_rows(self.labels, seed=self.seed, epoch=epoch).__getitem__
        rows = permute_rows(self.size, seed=self.seed, epoch=epoch)
        return lambda position: SampleKey(epoch, int(rows[position]))


def permute_rows(size: int, *, seed: int, epoch: int) -> NDArray[np.intp]:
    """Give the order of all rows in one epoch.

    The raw stream of PCG64 is sorted instead of calling `Generator.permutation`, because numpy
    promises the raw stream for all versions and the method's result for none.

    Returns:
        (size,) a permutation of 0..size - 1.
    """
    return _permute(size, "order", seed, epoch)


def balanced_rows(labels: Sequence[int], *, seed: int, epoch: int) -> list[SampleKey]:
    """Give the order of one epoch in which each class comes equally often.

    The epoch is as long as there are rows, and made of rounds in which each class that occurs
    comes once, in a random order; the last round may be cut short, and over the epochs each class
    misses it equally often. The rows of a class stand in a stream of permutations that goes on
    from epoch to epoch, so that none is used a second time before all of its class were used once.

    Args:
        labels: The class of each row.
        seed: Of the permutations.
        epoch: From 0.

    Returns:
        One key for each row of the data set; its `epoch` is how often that row was used before,
        so that a row which comes twice in an epoch is augmented in two ways.
    """
    classes, members = np.unique(np.asarray(labels), return_inverse=True)
    rounds, rest = divmod(len(members), len(classes))
    cuts = np.cumsum(np.bincount(members))[:-1]
    rows_by_class = np.split(np.argsort(members, kind="stable"), cuts)
    streams = [
        # A class had `rounds` places in each epoch before, and its turns among the short rounds.
        _class_keys(
            rows_by_class[place],
            start=rounds * epoch + max(0, -(-(epoch * rest - place) // len(classes))),
            count=rounds + 1,
            seed=(seed, int(label)),
        )
        for place, label in enumerate(classes)
    ]
    keys = []
    for turn in range(rounds):
        order = _permute(len(classes), "round", seed, epoch, turn)
        keys += [streams[place][turn] for place in order]
    short = [(epoch * rest + index) % len(classes) for index in range(rest)]
    order = _permute(rest, "round", seed, epoch, rounds)
    return keys + [streams[short[index]][rounds] for index in order]


def _class_keys(
    rows: NDArray[np.intp], *, start: int, count: int, seed: tuple[int, int]
) -> list[SampleKey]:
    """Take places `start` to `start + count - 1` of the endless permutations of a class."""
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
    # Text, so that negative and very large seeds are as good as any.
    text = "/".join([purpose, *map(str, numbers)])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()

"""Which case stands where in which step, by arithmetic alone."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


class SampleKey(NamedTuple):
    """One use of one case.

    Attributes:
        epoch: How often all cases were used before, 0 at first.
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

    A step is one forward pass of one process: with accumulation an optimiser step is several.

    Args:
        size: Number of cases.
        batch_size: Cases in one batch of one rank.
        seed: Of the permutations.
        rank: This process, 0 to world - 1.
        world: Number of processes.
        start_step: The first step to give; where a run is resumed.
        steps: Steps of the whole run; the last one given is steps - 1.

    Raises:
        ValueError: If a number is out of its range.
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
    ) -> None:
        if size < 1 or batch_size < 1:
            raise ValueError(f"size {size} and batch_size {batch_size} must be at least 1")
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} is not in 0..{world - 1}")
        if start_step < 0:
            raise ValueError(f"start_step {start_step} is negative")
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world = world
        self.start_step = start_step
        self.steps = steps

    def __len__(self) -> int:
        return max(0, self.steps - self.start_step)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        epoch, order = -1, np.empty(0, dtype=np.intp)
        for step in range(self.start_step, self.steps):
            first = (step * self.world + self.rank) * self.batch_size
            keys = []
            for place in range(first, first + self.batch_size):
                wanted, position = divmod(place, self.size)
                if wanted != epoch:
                    epoch, order = wanted, permute_rows(self.size, seed=self.seed, epoch=wanted)
                keys.append(SampleKey(epoch, int(order[position])))
            yield keys


def permute_rows(size: int, *, seed: int, epoch: int) -> NDArray[np.intp]:
    """Give the order of all rows in one epoch.

    The raw stream of PCG64 is sorted instead of calling `Generator.permutation`, because numpy
    promises the raw stream for all versions and the method's result for none.

    Returns:
        (size,) a permutation of 0..size - 1.
    """
    entropy = int.from_bytes(_digest("order", seed, epoch), "little")
    keys = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(size)
    return np.argsort(keys, kind="stable")


def _digest(purpose: str, *numbers: int) -> bytes:
    # Text, so that negative and very large seeds are as good as any.
    text = "/".join([purpose, *map(str, numbers)])
    return hashlib.blake2b(text.encode(), digest_size=16).digest()

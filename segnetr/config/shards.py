"""Shards of a list of inputs, one per process."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from segnetr.errors import UsageError

_Item = TypeVar("_Item")
_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The shard of one process.

    Attributes:
        number: 1 to `count`.
        count: Number of shards. 1: one shard with all inputs.
    """

    number: int = 1
    count: int = 1

    def choose(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """Return every `count`-th item: shards of a list sorted by size take similar time."""
        return items[self.number - 1 :: self.count]


def parse_shard(text: str) -> Shard:
    """Return the shard that a string such as "2/8" (the second of eight) describes.

    Raises:
        UsageError: If the string is not of this form.
    """
    found = _SHARD.fullmatch(text.strip())
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"--shard {text}: expected I/N, for example 2/8")
    return Shard(number=number, count=count)


def find_shard(environment: Mapping[str, str]) -> Shard:
    """Return the shard of a process that `torchrun` started; for other processes, all inputs.

    Raises:
        UsageError: If RANK and WORLD_SIZE are inconsistent.
    """
    world, rank = environment.get("WORLD_SIZE", "1"), environment.get("RANK", "0")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise UsageError(f"RANK={rank} and WORLD_SIZE={world} are inconsistent; unset both")
    return Shard(number=int(rank) + 1, count=int(world))

"""One part of many: which of the inputs a process works on."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from segnetr.errors import UsageError

Item = TypeVar("Item")
_SHARD = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The part of one process.

    Attributes:
        number: 1 to `count`.
        count: Number of parts; 1: there is one part, of all.
    """

    number: int = 1
    count: int = 1

    def choose(self, items: Sequence[Item]) -> Sequence[Item]:
        """Give every `count`-th item, so that parts are alike where sizes rise along a list."""
        return items[self.number - 1 :: self.count]


def parse_shard(text: str) -> Shard:
    """Read "2/8": the second of eight parts.

    Raises:
        UsageError: If it is no part.
    """
    found = _SHARD.fullmatch(text.strip())
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"--shard {text}: write the part and their number, as 2/8")
    return Shard(number=number, count=count)


def find_shard(environment: Mapping[str, str]) -> Shard:
    """Give the part of a process that `torchrun` started, by its rank; of any other, all.

    Raises:
        UsageError: If RANK and WORLD_SIZE do not fit each other.
    """
    world, rank = environment.get("WORLD_SIZE", "1"), environment.get("RANK", "0")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise UsageError(f"RANK={rank} and WORLD_SIZE={world}: no rank of a group; unset them")
    return Shard(number=int(rank) + 1, count=int(world))

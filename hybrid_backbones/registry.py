"""The table of all variants."""

import difflib
import fnmatch
from collections.abc import Mapping, Sequence

from hybrid_backbones.architectures import (
    cmt,
    cvt,
    moa,
    mobile_former,
    mobilevit,
    swin,
    vitae,
    vitae_v2,
)
from hybrid_backbones.model_spec import ModelSpec

_FAMILIES: tuple[tuple[ModelSpec, ...], ...] = (
    cmt.ENTRIES,
    cvt.ENTRIES,
    moa.ENTRIES,
    mobile_former.ENTRIES,
    mobilevit.ENTRIES,
    swin.ENTRIES,
    vitae.ENTRIES,
    vitae_v2.ENTRIES,
)
ENTRIES: Mapping[str, ModelSpec] = {entry.name: entry for family in _FAMILIES for entry in family}


def list_models(pattern: str = "*") -> list[str]:
    """Name the variants that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(ENTRIES, pattern))


def get_spec(name: str) -> ModelSpec:
    """Give the entry of a variant.

    Raises:
        ValueError: If there is none of that name; the nearest is named.
    """
    if name not in ENTRIES:
        raise ValueError(f"unknown backbone {name!r}{suggest(name, list(ENTRIES))}")
    return ENTRIES[name]


def suggest(word: str, known: Sequence[str]) -> str:
    """Name the nearest of the known words, or all of them."""
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; known: {', '.join(sorted(known))}"

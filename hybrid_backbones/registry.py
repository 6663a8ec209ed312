"""The table of all backbones."""

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from importlib import import_module

from hybrid_backbones.model_spec import ModelSpec, SmallVariant

# Modules of `hybrid_backbones.architectures`. Each defines SPECS, the published variants, and
# SMALL, a small variant of each architecture for the contract tests.
_FAMILIES = (
    "cmt",
    "cvt",
    "moa",
    "mobile_former",
    "mobilevit",
    "swin",
    "vitae",
    "vitae_v2",
)
_MODULES = [import_module(f"hybrid_backbones.architectures.{family}") for family in _FAMILIES]
SPECS: Mapping[str, ModelSpec] = {spec.name: spec for module in _MODULES for spec in module.SPECS}
SMALL_VARIANTS: Mapping[str, SmallVariant] = {
    name: small for module in _MODULES for name, small in module.SMALL.items()
}


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the variants that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(SPECS, pattern))


def get_spec(name: str) -> ModelSpec:
    """Return the spec of a variant.

    Raises:
        ValueError: If the name is unknown; the message contains the closest name.
    """
    if name not in SPECS:
        raise ValueError(f"unknown backbone {name!r}{suggest_name(name, list(SPECS))}")
    return SPECS[name]


def suggest_name(word: str, known: Sequence[str]) -> str:
    """Return a message that names the closest of the known words, or all of them."""
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; known: {', '.join(sorted(known))}"

"""Guess which network a checkpoint that did not fit belongs to."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from hybrid_backbones.backbone import Backbone
from hybrid_backbones.registry import SPECS

_MIN_SHARE = 0.5


def recognize_checkpoint(state: Mapping[str, Tensor]) -> str | None:
    """Return the variant whose published checkpoint has these keys and shapes.

    The number of classes and image channels is ignored.

    Returns:
        "those of NAME" if the checkpoint contains all entries of that variant, "near those of NAME"
        if it contains more than half of them, None otherwise.
    """
    shapes = {key: value.to("meta") for key, value in state.items()}
    found = {name: _share(name, shapes) for name in SPECS}
    # The first of equal ones: variants that differ only in the image size share checkpoints.
    best = max(found, key=lambda name: found[name])
    if found[best] == 1.0:
        return f"those of {best}"
    return f"near those of {best}" if found[best] > _MIN_SHARE else None


def _share(name: str, state: Mapping[str, Tensor]) -> float:
    """Return the share of a variant's entries that a checkpoint contains, by key and shape."""
    model = _build_without_values(name)
    own = model.state_dict()
    with torch.device("meta"):
        converted = model.convert_published(state)
    free = {*names(model, "head_keys"), *names(model, "first_convolution")}
    kept = [key for key in own if not key.endswith("num_batches_tracked")]
    fit: int = sum(
        key in converted and (key in free or converted[key].shape == own[key].shape) for key in kept
    )
    # Additional entries count against it, otherwise a network would match a part of another.
    return fit / max(len(kept), len(set(converted) - set(own)) + fit)


@cache
def _build_without_values(name: str) -> Backbone:
    """Build a variant on the meta device, which takes seconds for all of them."""
    with torch.device("meta"):
        return SPECS[name].build(SPECS[name].config)


def names(model: Backbone, attribute: str) -> tuple[str, ...]:
    """Return the keys that a network lists under an attribute, if any."""
    value: Any = getattr(model, attribute, ())
    return (value,) if isinstance(value, str) else tuple(value)

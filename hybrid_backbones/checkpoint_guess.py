"""Saying which network a foreign checkpoint looks like; only asked when it did not fit."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hybrid_backbones.backbone import Backbone
from hybrid_backbones.model_spec import ModelSpec
from hybrid_backbones.registry import SPECS

_LIKENESS = 0.5


def recognize(state: Mapping[str, Tensor]) -> str | None:
    """Name the variant whose published checkpoint has these keys and shapes.

    Width of the classifier and channels of the image do not count.

    Returns:
        "those of NAME" if all entries of that variant are there, "near those of NAME" if more than
        half of them are, None if no variant is that near.
    """
    shapes = {key: value.to("meta") for key, value in state.items()}
    found = {name: _share(spec, shapes) for name, spec in SPECS.items()}
    # Of equals the first: variants that differ in the image size alone share their checkpoints.
    best = max(found, key=lambda name: found[name])
    if found[best] == 1.0:
        return f"those of {best}"
    return f"near those of {best}" if found[best] > _LIKENESS else None


def _share(spec: ModelSpec, state: Mapping[str, Tensor]) -> float:
    """Give the share of a variant's entries that a checkpoint has, by key and shape."""
    with torch.device("meta"):
        model = spec.build(spec.config)
        own = model.state_dict()
        converted = model.convert_published(state)
    free = {*names(model, "head_keys"), *names(model, "first_convolution")}
    kept = [key for key in own if not key.endswith("num_batches_tracked")]
    fit: int = sum(
        key in converted and (key in free or converted[key].shape == own[key].shape) for key in kept
    )
    # What is left over counts against it, or a part would be taken for the whole.
    return fit / max(len(kept), len(set(converted) - set(own)) + fit)


def names(model: Backbone, attribute: str) -> tuple[str, ...]:
    """Give the keys that a network lists under an attribute, where it does."""
    value: Any = getattr(model, attribute, ())
    return (value,) if isinstance(value, str) else tuple(value)

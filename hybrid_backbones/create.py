"""Create a network by name."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from hybrid_backbones.backbone import Backbone, FeatureExtractor
from hybrid_backbones.registry import get_spec, suggest_name
from hybrid_backbones.weights import load_published, read_checkpoint


@overload
def create_model(
    name: str,
    *,
    features_only: Literal[False] = False,
    pretrained: str | Path | None = None,
    in_channels: int = 3,
    num_classes: int = 1000,
    **overrides: Any,
) -> Backbone: ...
@overload
def create_model(
    name: str,
    *,
    features_only: Literal[True],
    pretrained: str | Path | None = None,
    in_channels: int = 3,
    levels: Sequence[int] | None = None,
    **overrides: Any,
) -> FeatureExtractor: ...
def create_model(
    name: str,
    *,
    features_only: bool = False,
    pretrained: str | Path | None = None,
    in_channels: int = 3,
    num_classes: int = 1000,
    levels: Sequence[int] | None = None,
    **overrides: Any,
) -> Backbone | FeatureExtractor:
    """Create a published network, as a classifier or as a pyramid of feature maps.

    Args:
        name: A name of `list_models()`.
        features_only: Return a `FeatureExtractor`, built without a classifier.
        pretrained: A checkpoint file in its published layout; nothing is ever downloaded.
        in_channels: Channels of the images.
        num_classes: Number of classes; 0: no classifier.
        levels: The maps of the pyramid to return, 0 is the finest; only with `features_only`.
        **overrides: Fields of the variant's configuration. The field names of version 0.1 are
            accepted with a warning that names the new field.

    Raises:
        ValueError: If the name or a field is unknown (the closest is named), or a field is given
            under both its old and its new name.
        CheckpointError: If the checkpoint does not fit.
    """
    spec = get_spec(name)
    fields = [field.name for field in dataclasses.fields(spec.config)]
    overrides = rename_old_fields(name, overrides)
    for key in overrides:
        if key not in fields:
            raise ValueError(f"{name} has no setting {key!r}{suggest_name(key, fields)}")
    classes = 0 if features_only else num_classes
    config = dataclasses.replace(
        spec.config, in_channels=in_channels, num_classes=classes, **overrides
    )
    model = spec.build(config)
    if pretrained is not None:
        load_published(model, read_checkpoint(pretrained))
    return FeatureExtractor(model, levels) if features_only else model


# Field names of version 0.1 and the names that replaced them.
_OLD_FIELDS = {
    "width": "embed_dim",
    "widths": "embed_dims",
    "heads": "num_heads",
    "window": "window_size",
    "windows": "window_sizes",
}


def rename_old_fields(name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Replace configuration fields of version 0.1 by their new names, with one warning for each.

    Args:
        name: A name of `list_models()`.
        overrides: Fields of the variant's configuration.

    Returns:
        The fields with their new names; unknown ones are unchanged.

    Raises:
        ValueError: If a field is given under both names.
    """
    fields = {field.name for field in dataclasses.fields(get_spec(name).config)}
    renamed: dict[str, Any] = {}
    for key, value in overrides.items():
        new = _OLD_FIELDS.get(key, key)
        if key in fields or new not in fields:
            renamed[key] = value
            continue
        if new in overrides:
            raise ValueError(f"{name}: {key!r} is the old name of {new!r}; give only {new!r}")
        warnings.warn(f"{name}: setting {key!r} is now called {new!r}", UserWarning, stacklevel=3)
        renamed[new] = value
    return renamed

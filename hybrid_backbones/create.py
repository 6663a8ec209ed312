"""The one door through which networks are made."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

from hybrid_backbones.backbone import Backbone, FeatureExtractor
from hybrid_backbones.registry import get_spec, suggest
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
    """Make a published network, as a classifier or as a pyramid of feature maps.

    Args:
        name: A name of `list_models()`.
        features_only: Give a `FeatureExtractor`, built without a classifier.
        pretrained: A checkpoint file in its published layout; nothing is ever downloaded.
        in_channels: Channels of the images.
        num_classes: Width of the classifier; 0: none.
        levels: Which maps of the pyramid, 0 the finest; only with `features_only`.
        **overrides: Fields of the variant's configuration.

    Raises:
        ValueError: If the name or a field is unknown (the nearest is named).
        CheckpointError: If the checkpoint does not fit.
    """
    entry = get_spec(name)
    fields = [field.name for field in dataclasses.fields(entry.config)]
    for key in overrides:
        if key not in fields:
            raise ValueError(f"{name} has no setting {key!r}{suggest(key, fields)}")
    classes = 0 if features_only else num_classes
    config = dataclasses.replace(
        entry.config, in_channels=in_channels, num_classes=classes, **overrides
    )
    model = entry.build(config)
    if pretrained is not None:
        load_published(model, read_checkpoint(pretrained))
    return FeatureExtractor(model, levels) if features_only else model

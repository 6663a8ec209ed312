"""One published variant, as data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hybrid_backbones.backbone import Backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A named variant of an architecture: a line of data, never a subclass.

    Attributes:
        name: Name for `create_model`.
        build: Makes the network from a configuration.
        config: The variant's configuration, a frozen dataclass; has at least the fields
            `in_channels` and `num_classes`.
        image_size: Side of the images it was published for, in pixels.
        parameters: Parameters with 1000 classes (or the published class count), as published code
            builds it.
        gmacs: Multiply-adds of one image at `image_size`, in 1e9.
        top1: Published top-1 accuracy on ImageNet-1k in percent; None where none can be quoted.
        paper: Title, venue, arXiv id.
        code: The official code and commit the numbers were checked against.
        weights_licence: Licence of the official weights, or what is known about it.
    """

    name: str
    build: Callable[[Any], Backbone]
    config: Any
    image_size: int
    parameters: int
    gmacs: float
    top1: float | None
    paper: str
    code: str
    weights_licence: str

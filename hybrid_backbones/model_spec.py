"""One published variant, as data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from hybrid_backbones.backbone import Backbone


class Normalization(NamedTuple):
    """What published weights expect of images in [0, 1]: (value - mean) / std, by channel.

    Attributes:
        mean: Of red, green, blue.
        std: The same.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNIT = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
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
        strides: Input pixels for one feature pixel of each level of the pyramid, finest first.
        channels: Channels of these levels.
        top1: Published top-1 accuracy on ImageNet-1k in percent, at `image_size`; None where none
            can be quoted.
        trained_on: What the network of that accuracy was trained on.
        normalization: What the published weights expect of images.
        paper: Title, venue, arXiv id.
        code: The official code and commit the numbers were checked against.
        weights_license: License of the official weights, or what is known about it.
    """

    name: str
    build: Callable[[Any], Backbone]
    config: Any
    image_size: int
    parameters: int
    gmacs: float
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    top1: float | None
    trained_on: str = "ImageNet-1k"
    normalization: Normalization = IMAGENET
    paper: str
    code: str
    weights_license: str

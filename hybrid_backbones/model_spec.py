"""The data of one published variant."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from hybrid_backbones.backbone import Backbone


class Normalization(NamedTuple):
    """The normalization (value - mean) / std of images in [0, 1] that published weights expect.

    Attributes:
        mean: Means of red, green and blue.
        std: Their standard deviations.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNIT = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A named variant of an architecture: data, never a subclass.

    Attributes:
        name: Name for `create_model`.
        build: Builds the network from a configuration.
        config: The variant's configuration, a frozen dataclass with at least the fields
            `in_channels` and `num_classes`.
        image_size: Side of the images it was published for, in pixels.
        parameters: Number of parameters with 1000 classes (or the published class count), as
            published code builds it.
        gmacs: Multiply-adds of one image at `image_size`, in 1e9.
        strides: Input pixels for one feature pixel of each level of the pyramid, finest first.
        channels: Channels of these levels.
        top1: Published top-1 accuracy on ImageNet-1k in percent, at `image_size`; None if none can
            be quoted.
        trained_on: Training data of the network with that accuracy.
        normalization: Normalization of images that the published weights expect.
        paper: Title, venue, arXiv id.
        code: The official code and commit that the numbers were checked against.
        weights_license: License of the official weights, or the known facts about it.
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


@dataclass(frozen=True, slots=True)
class SmallVariant:
    """Overrides that make a small network of the same structure, for the contract tests.

    Attributes:
        overrides: Fields of the variant's configuration.
        exports_any_size: Whether one exported graph serves images of every height and width;
            otherwise each image size is exported separately.
    """

    overrides: Mapping[str, Any]
    exports_any_size: bool = False

"""Collect features during an image's forward pass, for quality estimation."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segnetr.data.preprocessing.resize import Array
from segnetr.data.volumes.slice_stack import Slices
from segnetr.engine.inference.postprocessing import background_weight
from segnetr.engine.inference.slice_inferer import SliceInferer
from segnetr.engine.inference.sliding_windows import Band
from segnetr.engine.quality.embedding import Embedding
from segnetr.engine.quality.intensity_statistics import IntensityStatistics
from segnetr.engine.quality.probability_features import ProbabilityFeatures

FileKind = Literal["image", "volume"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureConfig:
    """Which features are collected.

    Attributes:
        level: Dotted name of the module whose feature map describes the input.
        temperature: Applied to the probabilities.
        compare_views: Whether test-time augmentations are compared, if there are several.
    """

    level: str
    temperature: float
    compare_views: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFeatures:
    """Features of one file, collected while one network predicted it.

    Attributes:
        kind: Image or volume.
        spacing: Voxel sizes of a volume in mm. None: an image, or a volume without spacing.
        intensity: Intensity statistics (A,) before normalization.
        embedding: (C,) mean of the feature map of the deepest level.
        features: Features of the probability map, by name.
    """

    kind: FileKind
    spacing: tuple[float, ...] | None
    intensity: NDArray[np.float64]
    embedding: NDArray[np.float64]
    features: Mapping[str, float] = field(default_factory=dict)


class ObservedSlices:
    """Slices whose intensity statistics are updated when they are read, without neighbors."""

    def __init__(self, slices: Slices, statistics: IntensityStatistics, *, neighbors: int) -> None:
        self._slices = slices
        self._statistics = statistics
        self._neighbors = neighbors

    @property
    def plane(self) -> tuple[int, int]:
        """(height, width) of the slices in pixels."""
        return self._slices.plane

    @property
    def depth(self) -> int:
        """Number of slices."""
        return self._slices.depth

    def view(self, index: int) -> Array:
        """Return a slice with its neighbors, and update the statistics."""
        image = self._slices.view(index)
        channels = image.shape[2] // (2 * self._neighbors + 1)
        start = self._neighbors * channels
        self._statistics.update(image[..., start : start + channels])
        return image


class FeatureCollector:
    """Collects the features of one file; a `segnetr.engine.inference.predictor.FeatureHook`.

    Use one collector per file and network.

    Args:
        config: Which features are collected.

    Attributes:
        needs_variance: Whether several test-time augmentations are compared. Known after `wrap`.
    """

    def __init__(self, config: FeatureConfig) -> None:
        self._config = config
        self.needs_variance = False

    def wrap(self, network: SliceInferer, slices: Slices) -> Slices:
        """Return the same slices, observed when the network reads them.

        Raises:
            ModelFileError: If the network has no module of the configured name.
        """
        config = self._config
        views = len(network.tta_transforms) if config.compare_views else 1
        self.needs_variance = views > 1
        self._embedding = Embedding(network.model, config.level)
        self._statistics = IntensityStatistics(network.channels // network.slices.num_slices)
        self._features = ProbabilityFeatures(
            network.image_size if network.mode == "resize" else slices.plane,
            num_classes=network.num_classes,
            temperature=config.temperature,
            background=float(background_weight(network.config.threshold)),
            views=views,
        )
        return ObservedSlices(slices, self._statistics, neighbors=network.slices.neighbors)

    def attach(self) -> AbstractContextManager[None]:
        """Return a context in which the feature maps of the configured module are averaged."""
        return self._embedding.attach()

    def update(self, band: Band) -> None:
        """Add the probabilities of some rows."""
        self._features.update(band.top, band.probabilities)

    def result(self, kind: FileKind, spacing: tuple[float, ...] | None) -> ImageFeatures:
        """Return the features of the file."""
        return ImageFeatures(
            kind=kind,
            spacing=spacing,
            intensity=self._statistics.result(),
            embedding=self._embedding.result(),
            features=self._features.result(),
        )

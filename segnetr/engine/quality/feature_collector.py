"""What is noticed of one file while a network answers about it, in the same passage."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from segnetr.data.preprocessing.resize import Array
from segnetr.data.volumes.slice_stack import Slices
from segnetr.engine.inference.sliding_windows import Band
from segnetr.engine.quality.embedding import Embedding
from segnetr.engine.quality.intensity_statistics import Appearance
from segnetr.engine.quality.probability_features import MapFeatures

FileKind = Literal["image", "volume"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFeatures:
    """One file, as a network saw it.

    Attributes:
        kind: What it is.
        spacing: Voxel sides of a volume in mm; None: a image, or a volume without.
        features: Of the probability map, by name.
        appearance: (A,) before normalization.
        embedding: (C,) of the deepest level.
    """

    kind: FileKind
    spacing: tuple[float, ...] | None
    appearance: NDArray[np.float64]
    embedding: NDArray[np.float64]
    features: Mapping[str, float] = field(default_factory=dict)


class _Beheld:
    """Slices that are looked at when they are taken, each without its neighbors."""

    def __init__(self, stack: Slices, appearance: Appearance, *, neighbors: int) -> None:
        self._stack = stack
        self._appearance = appearance
        self._neighbors = neighbors

    @property
    def plane(self) -> tuple[int, int]:
        return self._stack.plane

    @property
    def depth(self) -> int:
        return self._stack.depth

    def view(self, index: int) -> Array:
        image = self._stack.view(index)
        channels = image.shape[2] // (2 * self._neighbors + 1)
        start = self._neighbors * channels
        self._appearance.see(image[..., start : start + channels])
        return image


class Observer:
    """Watches one network answer about one file.

    Args:
        model: The network.
        level: The module whose maps describe what it is shown.
        channels: Channels of a slice without its neighbors.
        neighbors: Slices on either side that come with each.
        features: Takes in the answers.
    """

    def __init__(
        self,
        model: nn.Module,
        level: str,
        *,
        channels: int,
        neighbors: int,
        features: MapFeatures,
    ) -> None:
        self._embedding = Embedding(model, level)
        self._appearance = Appearance(channels)
        self._neighbors = neighbors
        self._features = features

    def watch(self) -> AbstractContextManager[None]:
        """Look into the network as long as the context lasts."""
        return self._embedding.watch()

    def behold(self, stack: Slices) -> Slices:
        """Give the same slices, each looked at when the network takes it."""
        return _Beheld(stack, self._appearance, neighbors=self._neighbors)

    def follow(self, bands: Iterator[Band]) -> Iterator[Band]:
        """Pass answers on, and look at each."""
        for band in bands:
            self._features.add(band.top, band.answer)
            yield band

    def finish(self, kind: FileKind, spacing: tuple[float, ...] | None) -> ImageFeatures:
        """Give what was noticed."""
        return ImageFeatures(
            kind=kind,
            spacing=spacing,
            appearance=self._appearance.finish(),
            embedding=self._embedding.finish(),
            features=self._features.finish(),
        )

"""Accumulate the tiles of one file into labels, and if requested probabilities and uncertainty.

Each tile becomes labels as soon as it is added, class by class, so a large file never needs all its
probabilities at once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from segnetr.data.volumes.slice_stack import restore_axis
from segnetr.engine.inference.label_store import PageRelease

Combination = Literal["mean", "vote"]
ClassCallback = Callable[[int, Tensor], None]
"""Receives a class index and its probabilities (h, w)."""

MAX_VARIANCE = 0.5
"""Largest possible value of a variance map. With two classes the largest value is half of it."""

_MIN_PROBABILITY = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Uncertainty:
    """Uncertainty maps of a mask on the grid of its file.

    Attributes:
        entropy: (H, W) or (X, Y, Z) float32, 0 to 1. 1: all classes are equally probable.
        variance: Half the sum over the classes of the variance of their probabilities over all
            test-time augmentations and networks, 0 to `MAX_VARIANCE`. None: a single network
            without augmentations.
    """

    entropy: NDArray[np.float32]
    variance: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Position of some rows of a slice in a file.

    Attributes:
        axis: Axis along which a volume is sliced. None: a 2-D image.
        plane: Index of the slice.
        rows: The rows.
        start: Number of pixels of the file before these rows, slice by slice and row by row.
    """

    axis: int | None
    plane: int
    rows: slice
    start: int

    def cut(self, whole: NDArray[Any]) -> NDArray[Any]:
        """Return a view of these rows in an array (H, W) or (X, Y, Z) on the grid of the file."""
        if self.axis is None:
            return whole[self.rows]
        return np.moveaxis(whole, self.axis, -1)[self.rows, :, self.plane]


ProbabilityCallback = Callable[[Region, int, NDArray[np.float32]], None]
"""Receives a region, a class index and the probabilities of the class there, class by class."""


@dataclass(frozen=True, slots=True, eq=False)
class PredictedRows:
    """Rows of one slice and the prediction of each network for them.

    Attributes:
        index: Index of the slice.
        top: First row.
        height: Number of rows on the grid of the file.
        predictions: One tensor per network: probabilities (K, h, w), or (K + 1, h, w) with the
            variance over test-time augmentations as the last plane.
    """

    index: int
    top: int
    height: int
    predictions: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AccumulatedPrediction:
    """Accumulated arrays of one file. Shapes are those of `Prediction`."""

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None
    uncertainty: Uncertainty | None


class PredictionAccumulator:
    """Accumulates tiles on the grid of one file.

    Args:
        labels: (H, W, slices) on the grid of the file, all 0. Filled in place.
        axis: Axis along which a volume is sliced. None: a 2-D image.
        num_classes: Number of classes K.
        combination: How several networks are combined.
        background: Factor on the background probability when labels are chosen.
        keep_probabilities: Keep all probabilities.
        temperatures: One per network, applied before the entropy. None: no uncertainty is kept.
        has_variance: Keep the variance as well, because there are several networks or
            augmentations.
        callback: Receives all probabilities, tile by tile.
    """

    def __init__(
        self,
        labels: NDArray[np.uint8],
        *,
        axis: int | None,
        num_classes: int,
        combination: Combination,
        background: float,
        keep_probabilities: bool,
        temperatures: Sequence[float] | None,
        has_variance: bool,
        callback: ProbabilityCallback | None = None,
    ) -> None:
        self._axis = axis
        self._callback = callback
        self._classes = num_classes
        self._combination: Combination = combination
        self._background = background
        self._temperatures = temperatures
        self._labels = labels
        self._release = None if axis is None else PageRelease(labels)
        grid = labels.shape
        self._probabilities = self._entropy = self._variance = None
        if keep_probabilities:
            self._probabilities = np.empty((num_classes, *grid), dtype=np.float32)
        if temperatures is not None:
            self._entropy = np.empty(grid, dtype=np.float32, order="F")
            if has_variance:
                self._variance = np.empty(grid, dtype=np.float32, order="F")

    def add(self, tile: PredictedRows) -> None:
        """Label the rows of a tile and store whatever else was requested."""
        rows = slice(tile.top, tile.top + tile.height)
        width = self._labels.shape[1]
        grid = (tile.height, width)
        probabilities = [each[: self._classes] for each in tile.predictions]
        self._labels[rows, :, tile.index] = label_pixels(
            probabilities,
            grid,
            combination=self._combination,
            background=self._background,
            callback=self._make_class_callback(tile, rows),
        ).cpu()
        if self._release is not None:
            self._release.touch(tile.height * width)
        if self._entropy is not None and self._temperatures is not None:
            entropy = map_entropy(probabilities, grid, temperatures=self._temperatures)
            self._entropy[rows, :, tile.index] = entropy.cpu()
        if self._variance is not None:
            within = [each[self._classes :] for each in tile.predictions]
            variance = map_variance(
                probabilities, grid, variances=[each for each in within if len(each)]
            )
            self._variance[rows, :, tile.index] = variance.cpu()

    def result(self) -> AccumulatedPrediction:
        """Return the accumulated arrays on the grid of the file."""
        axis = self._axis
        uncertainty = None
        if self._entropy is not None:
            variance = None if self._variance is None else _restore(self._variance, axis)
            uncertainty = Uncertainty(entropy=_restore(self._entropy, axis), variance=variance)
        return AccumulatedPrediction(
            labels=_restore(self._labels, axis),
            probabilities=(
                None if self._probabilities is None else _restore(self._probabilities, axis)
            ),
            uncertainty=uncertainty,
        )

    def _make_class_callback(self, tile: PredictedRows, rows: slice) -> ClassCallback | None:
        """Return a function that stores or passes on the probabilities of a tile, if needed."""
        if self._probabilities is None and self._callback is None:
            return None
        height, width = self._labels.shape[:2]
        region = Region(
            axis=self._axis,
            plane=tile.index,
            rows=rows,
            start=(tile.index * height + tile.top) * width,
        )

        def receive(index: int, probability: Tensor) -> None:
            values = probability.cpu().numpy()
            if self._probabilities is not None:
                self._probabilities[index, rows, :, tile.index] = values
            if self._callback is not None:
                self._callback(region, index, values)

        return receive


def label_pixels(
    predictions: Sequence[Tensor],
    grid: tuple[int, int],
    *,
    combination: Combination = "mean",
    background: float = 1.0,
    callback: ClassCallback | None = None,
) -> Tensor:
    """Assign each pixel to its most probable class. Ties go to the lowest class index.

    Args:
        predictions: Probabilities (K, h, w) of each network, resized to the grid by linear
            interpolation.
        grid: (H, W) of the file.
        combination: "mean" of the probabilities, or "vote": each network has one vote per pixel,
            and the mean decides between classes with equally many votes.
        background: Factor on the background probability when a class is chosen. The callback
            receives probabilities without it.
        callback: Called with each class and its probabilities, or its share of the votes.

    Returns:
        Class indices (H, W) in uint8, on the device of the predictions.
    """
    if combination == "vote" and len(predictions) > 1:
        return _label_by_vote(predictions, grid, background=background, callback=callback)
    return _label_by_mean(predictions, grid, background=background, callback=callback)


def _label_by_mean(
    predictions: Sequence[Tensor],
    grid: tuple[int, int],
    *,
    background: float,
    callback: ClassCallback | None,
) -> Tensor:
    device = predictions[0].device
    labels = torch.zeros(grid, dtype=torch.uint8, device=device)
    is_higher = torch.empty(grid, dtype=torch.bool, device=device)
    highest: Tensor | None = None
    for index in range(len(predictions[0])):
        probability = average_class(predictions, index, grid)
        if callback is not None:
            callback(index, probability)
        if highest is None:
            highest = probability * background
            continue
        # Strictly greater: an equal class must not replace a lower one.
        torch.gt(probability, highest, out=is_higher)
        # Class indices only rise, so the maximum is the new label. This is five times as fast as
        # writing through a boolean mask.
        torch.maximum(labels, is_higher.view(torch.uint8) * index, out=labels)
        torch.maximum(highest, probability, out=highest)
    return labels


def _label_by_vote(
    predictions: Sequence[Tensor],
    grid: tuple[int, int],
    *,
    background: float,
    callback: ClassCallback | None,
) -> Tensor:
    votes = [
        _label_by_mean([each], grid, background=background, callback=None) for each in predictions
    ]
    labels = torch.zeros(grid, dtype=torch.uint8, device=predictions[0].device)
    highest = torch.full(grid, -1.0, device=predictions[0].device)
    for index in range(len(predictions[0])):
        count = torch.stack([vote == index for vote in votes]).sum(dim=0)
        if callback is not None:
            callback(index, count / len(predictions))
        # Half of a mean is less than one vote, so it only decides between equal counts. Dividing by
        # the factor keeps this true if the factor of the background is above 1.
        factor = (background if index == 0 else 1.0) / max(1.0, background)
        score = count + 0.5 * factor * average_class(predictions, index, grid)
        labels.masked_fill_(score > highest, index)
        torch.maximum(highest, score, out=highest)
    return labels


def average_class(predictions: Sequence[Tensor], index: int, grid: tuple[int, int]) -> Tensor:
    """Return the mean probability (H, W) of a class over all networks, resized to the grid."""
    total = _resize(predictions[0][index], grid)
    for each in predictions[1:]:
        total = total + _resize(each[index], grid)
    return total if len(predictions) == 1 else total / len(predictions)


def apply_temperature(probabilities: Tensor, temperature: float) -> Tensor:
    """Return probabilities (K, h, w) as if the logits had been divided by the temperature."""
    if temperature == 1.0:
        return probabilities
    return (probabilities.clamp_min(_MIN_PROBABILITY).log() / temperature).softmax(dim=0)


def map_entropy(
    predictions: Sequence[Tensor], grid: tuple[int, int], *, temperatures: Sequence[float]
) -> Tensor:
    """Return the entropy (H, W) of the mean over all networks, 0 to 1.

    Args:
        predictions: Probabilities (K, h, w) of each network.
        grid: (H, W) of the file.
        temperatures: One per network.
    """
    scaled = [apply_temperature(*pair) for pair in zip(predictions, temperatures, strict=True)]
    classes = len(scaled[0])
    total = torch.zeros(grid, device=scaled[0].device)
    for index in range(classes):
        total += torch.special.entr(average_class(scaled, index, grid))
    return (total / math.log(classes)).clamp_(0, 1)


def map_variance(
    predictions: Sequence[Tensor], grid: tuple[int, int], *, variances: Sequence[Tensor]
) -> Tensor:
    """Return the variance over augmentations and networks, (H, W), 0 to `MAX_VARIANCE`.

    It is the mean of the variances within networks plus the variance between networks.

    Args:
        predictions: As in `map_entropy`.
        grid: (H, W) of the file.
        variances: Variance (1, h, w) over the augmentations of each network. Empty if no network
            uses augmentations.
    """
    total = torch.zeros(grid, device=predictions[0].device)
    if variances:
        total += average_class(variances, 0, grid)
    if len(predictions) > 1:
        for index in range(len(predictions[0])):
            each = torch.stack([average_class([one], index, grid) for one in predictions])
            total += 0.5 * each.var(dim=0, correction=0)
    return total.clamp_(0, MAX_VARIANCE)


def _restore(stacked: NDArray[Any], axis: int | None) -> NDArray[Any]:
    return stacked[..., 0] if axis is None else restore_axis(stacked, axis)


def _resize(plane: Tensor, grid: tuple[int, int]) -> Tensor:
    if tuple(plane.shape) == grid:
        return plane
    return F.interpolate(plane[None, None], size=grid, mode="bilinear", align_corners=False)[0, 0]

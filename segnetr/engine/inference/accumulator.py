"""The results of one file while they are filled, band by band, on its grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segnetr.data.volumes.slice_stack import restore_axis
from segnetr.engine.inference.label_store import PageRelease
from segnetr.engine.inference.labeling import Combination, label_pixels
from segnetr.engine.inference.region import Place, ProbabilityCallback, make_probability_writer
from segnetr.engine.inference.uncertainty import Uncertainty, map_entropy, map_variance


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Rows of a slice, and what each network says about them: (K, h, w), or (K + 1, h, w)."""

    index: int
    top: int
    height: int
    answers: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AccumulatedPrediction:
    """The accumulated results; shapes as in `Prediction`."""

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None
    uncertainty: Uncertainty | None


class PredictionAccumulator:
    """Labels, and what else is wanted, of a file.

    Args:
        labels: (H, W, slices) of the file, all 0; filled in.
        axis: Along which a volume is cut; None: a image.
        num_classes: K.
        combination: How several networks answer.
        background: Factor on the probability of the background where labels are chosen.
        keep_probabilities: Keep them.
        temperatures: Of each network's probabilities, to keep the entropy; None: it is not kept.
        has_variance: Keep the variance as well: there are several views or networks.
        watch: Shown all probabilities, part by part.
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
        watch: ProbabilityCallback | None = None,
    ) -> None:
        self._axis = axis
        self._watch = watch
        self._classes = num_classes
        self._combination: Combination = combination
        self._background = background
        self._temperatures = temperatures
        self._labels, self._release = labels, PageRelease(labels)
        grid = labels.shape
        self._kept = self._entropy = self._variance = None
        if keep_probabilities:
            self._kept = np.empty((num_classes, *grid), dtype=np.float32)
        if temperatures is not None:
            self._entropy = np.empty(grid, dtype=np.float32, order="F")
            if has_variance:
                self._variance = np.empty(grid, dtype=np.float32, order="F")

    def paint(self, part: Part) -> None:
        """Fill in the rows of a slice."""
        rows = slice(part.top, part.top + part.height)
        height, width = self._labels.shape[:2]
        grid = (part.height, width)
        place = Place(
            axis=self._axis,
            plane=part.index,
            rows=rows,
            start=(part.index * height + part.top) * width,
        )
        said = [answer[: self._classes] for answer in part.answers]
        self._labels[rows, :, part.index] = label_pixels(
            said,
            grid,
            combination=self._combination,
            background=self._background,
            store=make_probability_writer(
                None if self._kept is None else self._kept[:, rows, :, part.index],
                self._watch,
                place,
            ),
        ).cpu()
        self._release.touch(part.height * width)
        if self._entropy is not None and self._temperatures is not None:
            entropy = map_entropy(said, grid, temperatures=self._temperatures)
            self._entropy[rows, :, part.index] = entropy.cpu()
        if self._variance is not None:
            spreads = [a[self._classes :] for a in part.answers if len(a) > self._classes]
            variance = map_variance(said, grid, spreads=spreads)
            self._variance[rows, :, part.index] = variance.cpu()

    def finish(self) -> AccumulatedPrediction:
        """Give what was painted."""
        axis = self._axis
        uncertainty = None
        if self._entropy is not None:
            variance = None if self._variance is None else _restore(self._variance, axis)
            uncertainty = Uncertainty(entropy=_restore(self._entropy, axis), variance=variance)
        return AccumulatedPrediction(
            labels=_restore(self._labels, axis),
            probabilities=None if self._kept is None else _restore(self._kept, axis),
            uncertainty=uncertainty,
        )


def _restore(stacked: NDArray[Any], axis: int | None) -> NDArray[Any]:
    return stacked[..., 0] if axis is None else restore_axis(stacked, axis)

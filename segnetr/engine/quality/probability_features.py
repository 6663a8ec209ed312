"""Features of a probability map that predict the quality of its mask.

All of them are sums over pixels, so they are updated band by band and slice by slice without the
whole map. Probabilities are scaled by the temperature first.

Source:
    Expected Dice: Borges et al., Soft Dice Confidence, arXiv:2402.10665. Entropy and disagreement
    of augmentations as a sign of error: Roy et al., Bayesian QuickNAT, NeuroImage 2019,
    arXiv:1811.09800.
"""

import math

import numpy as np
import torch
from torch import Tensor

from segnetr.engine.inference.accumulator import apply_temperature

VIEWS_FEATURE = "view_agreement"
FEATURES = (
    "expected_dice",
    "entropy",
    "unsure_share",
    "foreground_share",
    "border_excess",
    "largest_piece",
)
"""Names of the features in their order. With several augmentations `VIEWS_FEATURE` is the last."""

_UNCERTAIN = (0.1, 0.9)
_TINY = 1e-6


def find_entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy (H, W) of probabilities (K, H, W), 0 to 1: 1 where all are equal."""
    total = torch.special.entr(probabilities).sum(dim=0)
    share: Tensor = total / math.log(len(probabilities))
    return share


class ProbabilityFeatures:
    """Accumulates the features of the probability map of one file.

    Args:
        plane: (height, width) of the slices that the network predicts.
        num_classes: Number of classes K.
        temperature: Applied to the probabilities.
        background: Factor on the background probability when labels are chosen.
        views: Number of test-time augmentations. With more than one, the variance over them
            follows the K probabilities.
    """

    def __init__(
        self,
        plane: tuple[int, int],
        *,
        num_classes: int,
        temperature: float,
        background: float,
        views: int,
    ) -> None:
        self._classes = num_classes
        self._temperature = temperature
        self._background = background
        self._views = views
        self._plane = np.zeros(plane, dtype=bool)
        self._pixels = 0
        # For each class: sums of p over its pixels, of p, and of pixels.
        self._overlap = np.zeros((3, num_classes))
        self._entropy = self._uncertain = 0.0
        self._agreeing = self._squares = 0.0
        self._border = self._disc_border = self._largest = 0.0

    def update(self, top: int, prediction: Tensor) -> None:
        """Add rows of a slice: (K, h, W), or (K + 1, h, W) with the variance as the last plane."""
        probabilities = prediction[: self._classes]
        weighted = probabilities.clone()
        weighted[0] *= self._background
        labels = weighted.argmax(dim=0)
        scaled = apply_temperature(probabilities, self._temperature)
        for index in range(1, self._classes):
            is_class = labels == index
            self._overlap[:, index] += (
                float(scaled[index][is_class].sum()),
                float(scaled[index].sum()),
                float(is_class.sum()),
            )
        foreground = 1 - scaled[0]
        uncertain = (foreground > _UNCERTAIN[0]) & (foreground < _UNCERTAIN[1])
        self._entropy += float(find_entropy(scaled).sum())
        self._uncertain += float(uncertain.sum())
        if self._views > 1:
            self._compare_views(probabilities, prediction[self._classes])
        rows = prediction.shape[1]
        self._pixels += labels.numel()
        self._plane[top : top + rows] = (labels > 0).cpu().numpy()
        if top + rows == len(self._plane):
            self._close_slice()

    def result(self) -> dict[str, float]:
        """Return the features by name."""
        shared, predicted, labeled = self._overlap[:, 1:]
        total = predicted + labeled
        expected = np.divide(2 * shared, total, out=np.zeros_like(total), where=total > 0)
        area = float(labeled.sum())
        features = {
            "expected_dice": float(expected.mean()),
            "entropy": self._entropy / max(self._entropy + area, _TINY),
            "unsure_share": self._uncertain / max(self._uncertain + area, 1.0),
            "foreground_share": math.log10(max(area / max(self._pixels, 1), 1e-4)),
            "border_excess": self._border / max(self._disc_border, 1.0),
            "largest_piece": self._largest / max(area, 1.0),
        }
        if self._views > 1:
            features[VIEWS_FEATURE] = self._agreeing / max(self._squares, _TINY)
        return features

    def _compare_views(self, probabilities: Tensor, variance: Tensor) -> None:
        """Add the soft Dice of all pairs of augmentations, computed from mean and variance.

        With V augmentations, the mean of p_i p_j over pairs is m^2 - v / (V - 1), and that of p_i^2
        is m^2 + v. The variances of several foreground classes are summed.
        """
        squares = float((probabilities[1:] ** 2).sum())
        total = float(variance.sum())
        self._agreeing += max(squares - total / (self._views - 1), 0.0)
        self._squares += squares + total

    def _close_slice(self) -> None:
        """Add the shape features of the foreground of a complete slice."""
        area = float(self._plane.sum())
        if not area:
            return
        # Importing scipy takes long, and only this feature needs it.
        from scipy import ndimage

        components, count = ndimage.label(self._plane)
        largest = area if count == 1 else float(np.bincount(components.ravel())[1:].max())
        # A disc of the same area has a border of 2 sqrt(pi area) pixels.
        inner = ndimage.binary_erosion(self._plane)
        self._border += area - float(inner.sum())
        self._disc_border += 2 * math.sqrt(math.pi * area)
        self._largest += largest

"""What a probability map looks like, as a few numbers that say how good its mask may be.

All of them are sums over pixels, so a map is looked at band by band and slice by slice and never
has to be there as a whole. Probabilities are scaled by the temperature first.

Source:
    Expected Dice: Borges et al., Soft Dice Confidence, arXiv:2402.10665. Entropy and disagreement
    of views as a sign of error: Roy et al., Bayesian QuickNAT, NeuroImage 2019, arXiv:1811.09800.
"""

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

VIEWS_FEATURE = "view_agreement"
FEATURES = (
    "expected_dice",
    "entropy",
    "unsure_share",
    "foreground_share",
    "border_excess",
    "largest_piece",
)
"""Names of the features, in their order; with several views `VIEWS_FEATURE` comes behind them."""

_UNSURE = (0.1, 0.9)
_TINY = 1e-6


def scale_answer(answer: Tensor, temperature: float) -> Tensor:
    """Give probabilities (K, H, W) as if their logits had been divided by the temperature."""
    if temperature == 1.0:
        return answer
    return (answer.clamp_min(_TINY).log() / temperature).softmax(dim=0)


def find_entropy(probabilities: Tensor) -> Tensor:
    """Give the entropy (H, W) of probabilities (K, H, W), 0 to 1: 1 where all are equal."""
    total = torch.special.entr(probabilities).sum(dim=0)
    share: Tensor = total / math.log(len(probabilities))
    return share


class MapFeatures:
    """Adds up what is seen of the map of one file.

    Args:
        plane: (height, width) of the slices that the network answers about.
        num_classes: K.
        temperature: Of the probabilities.
        background: Factor on the probability of the background where labels are chosen.
        views: Ways in which the network looked at each slice; with more than one, answers carry
            the variance over them behind the K probabilities.
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
        # For each class: shared, said, labeled.
        self._overlap = np.zeros((3, num_classes))
        self._entropy = self._unsure = 0.0
        self._agreeing = self._squares = 0.0
        self._border = self._round = self._largest = 0.0

    def add(self, top: int, answer: Tensor) -> None:
        """Take in rows of a slice: (K, h, W), or (K + 1, h, W) with the variance over views."""
        said = answer[: self._classes]
        weighed = said.clone()
        weighed[0] *= self._background
        labels = weighed.argmax(dim=0)
        scaled = scale_answer(said, self._temperature)
        for index in range(1, self._classes):
            is_class = labels == index
            self._overlap[:, index] += (
                float(scaled[index][is_class].sum()),
                float(scaled[index].sum()),
                float(is_class.sum()),
            )
        foreground = 1 - scaled[0]
        unsure = (foreground > _UNSURE[0]) & (foreground < _UNSURE[1])
        self._entropy += float(find_entropy(scaled).sum())
        self._unsure += float(unsure.sum())
        if self._views > 1:
            self._compare_views(said, answer[self._classes])
        rows = answer.shape[1]
        self._pixels += labels.numel()
        self._plane[top : top + rows] = (labels > 0).cpu().numpy()
        if top + rows == len(self._plane):
            self._close_slice()

    def finish(self) -> dict[str, float]:
        """Give the features by name."""
        shared, said, labeled = self._overlap[:, 1:]
        total = said + labeled
        expected = np.divide(2 * shared, total, out=np.zeros_like(total), where=total > 0)
        found = float(labeled.sum())
        features = {
            "expected_dice": float(expected.mean()),
            "entropy": self._entropy / max(self._entropy + found, _TINY),
            "unsure_share": self._unsure / max(self._unsure + found, 1.0),
            "foreground_share": math.log10(max(found / max(self._pixels, 1), 1e-4)),
            "border_excess": self._border / max(self._round, 1.0),
            "largest_piece": self._largest / max(found, 1.0),
        }
        if self._views > 1:
            features[VIEWS_FEATURE] = self._agreeing / max(self._squares, _TINY)
        return features

    def _compare_views(self, said: Tensor, variance: Tensor) -> None:
        """Add up the soft Dice of all pairs of views, which follows from mean and variance.

        The mean of p_i p_j over pairs of V views is m^2 - v / (V - 1), that of p_i^2 is m^2 + v.
        With more than one foreground class their variances are taken together.
        """
        squares = float((said[1:] ** 2).sum())
        spread = float(variance.sum())
        self._agreeing += max(squares - spread / (self._views - 1), 0.0)
        self._squares += squares + spread

    def _close_slice(self) -> None:
        """Look at the shape of the foreground of a slice that is complete."""
        area = float(self._plane.sum())
        if not area:
            return
        pieces, count = ndimage.label(self._plane)
        largest = area if count == 1 else float(np.bincount(pieces.ravel())[1:].max())
        # A border of 2 sqrt(pi area) is that of one disc.
        inner = ndimage.binary_erosion(self._plane)
        self._border += area - float(inner.sum())
        self._round += 2 * math.sqrt(math.pi * area)
        self._largest += largest

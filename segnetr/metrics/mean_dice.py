"""Dice of one case as a single number: the mean over its foreground classes."""

import numpy as np
from numpy.typing import NDArray


def find_mean_dice(
    labels: NDArray[np.uint8], ground_truth: NDArray[np.uint8], *, classes: int
) -> float:
    """Give the mean over the foreground classes of Dice; 1 where a class is empty in both.

    Args:
        labels: Predicted class indices.
        ground_truth: True ones, on the same grid.
        classes: Number of classes K, background included.
    """
    counts = np.bincount(
        labels.ravel().astype(np.intp) * classes + ground_truth.ravel(), minlength=classes * classes
    ).reshape(classes, classes)
    total = counts.sum(axis=0) + counts.sum(axis=1)
    shared = 2 * np.diagonal(counts)
    dice = np.divide(shared, total, out=np.ones(classes), where=total > 0)
    return float(dice[1:].mean())

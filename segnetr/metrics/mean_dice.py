"""Mean Dice of one case over its foreground classes."""

import numpy as np
from numpy.typing import NDArray


def find_mean_dice(
    labels: NDArray[np.uint8], ground_truth: NDArray[np.uint8], *, classes: int
) -> float:
    """Return the mean Dice over the foreground classes. A class absent from both masks counts as 1.

    Args:
        labels: Predicted class indices.
        ground_truth: True class indices on the same grid.
        classes: Number of classes K, including the background.
    """
    counts = np.bincount(
        labels.ravel().astype(np.intp) * classes + ground_truth.ravel(), minlength=classes * classes
    ).reshape(classes, classes)
    total = counts.sum(axis=0) + counts.sum(axis=1)
    shared = 2 * np.diagonal(counts)
    dice = np.divide(shared, total, out=np.ones(classes), where=total > 0)
    return float(dice[1:].mean())

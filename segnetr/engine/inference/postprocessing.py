"""Named steps that repair predicted labels: each knows only the labels, and changes no probability.

They state what is known of the object (one piece, no holes) and nothing else, and are off unless a
recipe or a user asks: a step that helps a tumour hurts where there are two.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segnetr.config.schema.postprocessing import PostprocessingStep

Labels = NDArray[np.uint8]
_Mask = NDArray[np.bool_]


def postprocess(labels: Labels, steps: Sequence[PostprocessingStep]) -> Labels:
    """Apply steps in their order, to each foreground class by itself.

    Args:
        labels: Class indices (H, W) or (X, Y, Z), background 0; not changed.
        steps: "largest_component" leaves of each class the piece with most pixels, of equal ones
            the first; pixels count as connected by a side. "remove_small:N" takes away pieces of
            fewer than N pixels. "fill_holes" gives a class what of the background it encloses.

    Returns:
        New labels of the same shape; `labels` itself where there are no steps.
    """
    for step in steps:
        name, _, number = step.partition(":")
        labels = _remove_small(labels, int(number)) if number else _STEPS[name](labels)
    return labels


def background_weight(threshold: float) -> np.float32:
    """Give the factor on the probability of the background that stands for a threshold.

    With one foreground class p > (1 - p) t / (1 - t) is p > t; with several the most probable one
    is held against the background in the same way. 1 for a threshold of one half.
    """
    return np.float32(threshold / (1 - threshold))


def choose_labels(probabilities: NDArray[np.float32], threshold: float) -> Labels:
    """Choose the class of each pixel, the first of equal ones.

    Args:
        probabilities: (K, ...), background first.
        threshold: As `predict.threshold`.
    """
    highest = probabilities[0] * background_weight(threshold)
    labels = np.zeros(highest.shape, dtype=np.uint8)
    for index, probability in enumerate(probabilities[1:], start=1):
        labels[probability > highest] = index
        highest = np.maximum(highest, probability)
    return labels


def _keep_largest(labels: Labels) -> Labels:
    kept = labels.copy()
    for index, box in _find_classes(labels):
        mask = labels[box] == index
        pieces, count = ndimage.label(mask)
        if count > 1:
            largest = 1 + np.argmax(np.bincount(pieces.ravel())[1:])
            kept[box][mask & (pieces != largest)] = 0
    return kept


def _remove_small(labels: Labels, least: int) -> Labels:
    kept = labels.copy()
    for index, box in _find_classes(labels):
        pieces, _ = ndimage.label(labels[box] == index)
        is_small = np.bincount(pieces.ravel()) < least
        is_small[0] = False  # what is no piece
        kept[box][is_small[pieces]] = 0
    return kept


def _fill_holes(labels: Labels) -> Labels:
    has_foreground = labels.copy()
    for index, box in _find_classes(labels):
        whole: _Mask = ndimage.binary_fill_holes(labels[box] == index)
        part = has_foreground[box]
        part[whole & (part == 0)] = index
    return has_foreground


def _find_classes(labels: Labels) -> list[tuple[int, tuple[slice, ...]]]:
    """Give each foreground class that is there, with the box around it."""
    found: list[Any] = ndimage.find_objects(labels)
    return [(index, box) for index, box in enumerate(found, start=1) if box is not None]


_STEPS: Mapping[str, Callable[[Labels], Labels]] = MappingProxyType(
    {"largest_component": _keep_largest, "fill_holes": _fill_holes}
)

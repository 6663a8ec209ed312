"""Postprocessing steps for predicted labels. They see only labels and change no probability.

They encode what is known about the object (one component, no holes) and are off unless a recipe or
a user requests them: a step that helps with one tumor hurts if there are two.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.postprocessing import PostprocessingStep

Labels = NDArray[np.uint8]
_Mask = NDArray[np.bool_]


def postprocess(labels: Labels, steps: Sequence[PostprocessingStep]) -> Labels:
    """Apply steps in their order, to each foreground class separately.

    Args:
        labels: Class indices (H, W) or (X, Y, Z), background 0. Not changed.
        steps: "largest_component" keeps the component with most pixels of each class, the first
            among equals; pixels are connected by a side. "remove_small:N" removes components of
            fewer than N pixels. "fill_holes" assigns enclosed background to the class around it.

    Returns:
        New labels of the same shape, or `labels` itself if there are no steps.
    """
    for step in steps:
        name, _, number = step.partition(":")
        labels = _remove_small(labels, int(number)) if number else _STEPS[name](labels)
    return labels


def background_weight(threshold: float) -> np.float32:
    """Return the factor on the background probability that corresponds to a threshold.

    With one foreground class, p > (1 - p) t / (1 - t) is p > t. With several, the most probable one
    is compared with the background in the same way. The factor is 1 for a threshold of one half.
    """
    return np.float32(threshold / (1 - threshold))


def choose_labels(probabilities: NDArray[np.float32], threshold: float) -> Labels:
    """Return the class of each pixel. Ties go to the lowest class index.

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
    from scipy import ndimage  # importing scipy takes long; most models have no steps

    result = labels.copy()
    for index, box in _find_classes(labels):
        mask = labels[box] == index
        components, count = ndimage.label(mask)
        if count > 1:
            largest = 1 + np.argmax(np.bincount(components.ravel())[1:])
            result[box][mask & (components != largest)] = 0
    return result


def _remove_small(labels: Labels, least: int) -> Labels:
    from scipy import ndimage

    result = labels.copy()
    for index, box in _find_classes(labels):
        components, _ = ndimage.label(labels[box] == index)
        is_small = np.bincount(components.ravel()) < least
        is_small[0] = False  # the background of the labeling
        result[box][is_small[components]] = 0
    return result


def _fill_holes(labels: Labels) -> Labels:
    from scipy import ndimage

    result = labels.copy()
    for index, box in _find_classes(labels):
        whole: _Mask = ndimage.binary_fill_holes(labels[box] == index)
        region = result[box]
        region[whole & (region == 0)] = index
    return result


def _find_classes(labels: Labels) -> list[tuple[int, tuple[slice, ...]]]:
    """Return each foreground class in the labels with its bounding box."""
    from scipy import ndimage

    found: list[Any] = ndimage.find_objects(labels)
    return [(index, box) for index, box in enumerate(found, start=1) if box is not None]


_STEPS: Mapping[str, Callable[[Labels], Labels]] = MappingProxyType(
    {"largest_component": _keep_largest, "fill_holes": _fill_holes}
)

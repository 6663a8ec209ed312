"""Align a thumbnail to a window of another one, and correlate their detail.

The correlation of gray values is not specific: any two lesions in the center of bright skin are
similar. Therefore the detail is compared, without structures coarser than a few pixels of the
thumbnail. Since a shift of one pixel destroys the correlation of detail, images are aligned first.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segnetr.data.duplicates.thumbnail import SIDE

Images = NDArray[np.float32]
Boxes = NDArray[np.float64]

# In pixels of the thumbnail. Fine enough to distinguish two lesions, coarse enough to survive
# recompression and resizing.
_FINE, _COARSE = 0.8, 3.0
_ROUNDS = ((32, 4), (SIDE, 2))  # side in pixels, and number of Gauss-Newton steps
_MAX_STEP = 0.03
_MIN_OVERLAP = 0.7
_BORDER = 2  # pixels that blurring fills from outside the image
_BATCH_SIZE = 64  # pairs, so that intermediate results fit in the CPU cache


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Positions of N images in N others.

    Attributes:
        box: (N, 4): top, left, height and width as shares of the other image.
        likeness: (N,) correlation of the detail, -1..1. -1 if they hardly overlap.
    """

    box: Boxes
    likeness: NDArray[np.float64]


def align(wholes: Images, crops: Images, start: Boxes) -> Alignment:
    """Find the windows of images that crops show, by shifting and scaling.

    Brightness and contrast may differ.

    Args:
        wholes: (N, SIDE, SIDE).
        crops: (N, SIDE, SIDE).
        start: (N, 4) initial guess: top, left, height and width of the crops in the wholes.
    """
    boxes = [np.empty((0, 4))]
    likeness = [np.empty(0)]
    for first in range(0, len(crops), _BATCH_SIZE):
        batch = slice(first, first + _BATCH_SIZE)
        box = _fit(wholes[batch], crops[batch], start[batch])
        boxes.append(box)
        likeness.append(compare_detail(wholes[batch], crops[batch], box))
    return Alignment(np.concatenate(boxes), np.concatenate(likeness))


def compare_detail(wholes: Images, crops: Images, box: Boxes) -> NDArray[np.float64]:
    """Correlate the detail of crops and windows where they overlap.

    Args:
        wholes: (N, SIDE, SIDE).
        crops: (N, SIDE, SIDE).
        box: (N, 4), as in `Alignment`.

    Returns:
        (N,) correlations. -1 if they hardly overlap or have no detail.
    """
    weights = _find_inside(box, SIDE)
    weights[:, :_BORDER] = weights[:, -_BORDER:] = weights[:, :, :_BORDER] = weights[
        :, :, -_BORDER:
    ] = 0
    first, second = _take_detail(_sample(wholes, box)), _take_detail(crops)
    count = weights.sum(axis=(1, 2))
    total = np.maximum(count, 1)[:, None, None]
    first = (first - (first * weights).sum((1, 2), keepdims=True) / total) * weights
    second = (second - (second * weights).sum((1, 2), keepdims=True) / total) * weights
    power = np.sqrt((first**2).sum((1, 2)) * (second**2).sum((1, 2)))
    usable = (count >= _MIN_OVERLAP * SIDE * SIDE) & (power > 1e-6)
    return np.where(usable, (first * second).sum((1, 2)) / np.maximum(power, 1e-6), -1.0)


def count_detailed(images: Images) -> NDArray[np.float64]:
    """Return the effective number of pixels of each image (N, SIDE, SIDE) that have detail.

    This is the participation ratio: a few for one spot on black, hundreds for a photograph.
    """
    power = _take_detail(images).astype(np.float64) ** 2
    return np.asarray(power.sum((1, 2)) ** 2 / np.maximum((power**2).sum((1, 2)), 1e-12))


def _fit(wholes: Images, crops: Images, start: Boxes) -> Boxes:
    box = start.astype(np.float64).copy()
    for side, steps in _ROUNDS:
        smooth_wholes, smooth_crops = _reduce(wholes, side), _reduce(crops, side)
        for _ in range(steps):
            box += _find_step(smooth_wholes, smooth_crops, box)
    return box


def _find_step(wholes: Images, crops: Images, box: Boxes) -> Boxes:
    """Return one Gauss-Newton step, with gain and offset as additional unknowns."""
    count, side = crops.shape[:2]
    sampled = _sample(wholes, box)
    # Gradients of the window over its share of the whole are those of the whole (chain rule).
    gradient_down, gradient_across = np.gradient(sampled, axis=(1, 2))
    gradient_down *= (side / box[:, 2]).astype(np.float32)[:, None, None]
    gradient_across *= (side / box[:, 3]).astype(np.float32)[:, None, None]
    steps = ((np.arange(side) + 0.5) / side).astype(np.float32)
    columns = np.empty((count, 6, side, side), np.float32)
    columns[:, 0], columns[:, 1] = gradient_down, gradient_across
    columns[:, 2], columns[:, 3] = gradient_down * steps[:, None], gradient_across * steps
    columns[:, 4], columns[:, 5] = sampled, 1
    flat = columns.reshape(count, 6, -1)
    weighted = flat * _find_inside(box, side).reshape(count, 1, -1)
    normal = (weighted @ flat.transpose(0, 2, 1)).astype(np.float64)
    right = (weighted @ crops.reshape(count, -1, 1)).astype(np.float64)
    # Regularized, because the system is singular for an image without gradients.
    normal[:, range(6), range(6)] = normal[:, range(6), range(6)] * (1 + 1e-6) + 1e-3
    solved = np.linalg.solve(normal, right)[..., 0]
    gain = solved[:, 4:5]
    usable = np.abs(gain) > 0.1
    step = np.where(usable, solved[:, :4] / np.where(usable, gain, 1.0), 0.0)
    return np.clip(step, -_MAX_STEP, _MAX_STEP)


def _sample(images: Images, box: Boxes) -> Images:
    """Sample windows of images (N, S, S) linearly. The border is replicated outside an image."""
    side = images.shape[1]
    sampled = np.empty(images.shape, np.float32)
    for image, window, (top, left, height, width) in zip(images, sampled, box, strict=True):
        # The center of pixel i of the window is at (i + 1/2) / side.
        across = (width, 0.0, left * side + width / 2 - 0.5)
        down = (0.0, height, top * side + height / 2 - 0.5)
        cv2.warpAffine(
            image,
            np.array((across, down)),
            (side, side),
            dst=window,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return sampled


def _find_inside(box: Boxes, side: int) -> Images:
    """Return 1 for pixels of a window (N, S, S) inside the image, else 0."""
    steps = (np.arange(side) + 0.5) / side
    margin = 0.25 / side
    inside = []
    for axis in (0, 1):
        position = box[:, axis, None] + box[:, axis + 2, None] * steps
        inside.append(((position > -margin) & (position < 1 + margin)).astype(np.float32))
    return np.asarray(inside[0][:, :, None] * inside[1][:, None, :])


def _take_detail(images: Images) -> Images:
    return _blur(images, _FINE) - _blur(images, _COARSE)


def _reduce(images: Images, side: int) -> Images:
    """Blur by one pixel of the target size, and downsample to it."""
    factor = images.shape[1] // side
    smooth = _blur(images, float(factor))
    if factor == 1:
        return smooth
    count = len(images)
    blocks = smooth.reshape(count, side, factor, side, factor)
    return np.asarray(blocks.mean(axis=(2, 4)), np.float32)


def _blur(images: Images, sigma: float) -> Images:
    blurred = np.empty(images.shape, np.float32)
    for image, result in zip(images, blurred, strict=True):
        cv2.GaussianBlur(image, (0, 0), sigma, dst=result, borderType=cv2.BORDER_REFLECT_101)
    return blurred

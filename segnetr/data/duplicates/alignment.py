"""How well one thumbnail lies upon a part of another, once it was shifted and stretched to fit.

Correlation of gray values alone says little: two lesions in the middle of bright skin are alike.
So what is compared is the detail, with what is coarser than a few pixels of the thumbnail taken
away; and because detail is lost by a shift of one pixel, the shift is found first.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from segnetr.data.duplicates.thumbnail import SIDE

Images = NDArray[np.float32]
Places = NDArray[np.float64]

# In pixels of the thumbnail. Fine enough to tell two lesions apart, coarse enough to outlive
# recompression and another resizing.
_FINE, _COARSE = 0.8, 3.0
_ROUNDS = ((32, 4), (SIDE, 2))  # side in pixels, and steps of Gauss and Newton at it
_LARGEST_STEP = 0.03
_LEAST_OVERLAP = 0.7
_RIM = 2  # pixels at the border that blurring fills from outside
_AT_ONCE = 64  # pairs; what is computed for them then fits a processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Where images lie in others, N of each.

    Attributes:
        place: (N, 4): top, left, height and width as shares of the other image.
        likeness: (N,) correlation of the detail, -1..1; -1 where they hardly overlap.
    """

    place: Places
    likeness: NDArray[np.float64]


def align(wholes: Images, parts: Images, start: Places) -> Alignment:
    """Shift and stretch windows of images until the parts lie upon them.

    Brightness and contrast may differ.

    Args:
        wholes: (N, SIDE, SIDE).
        parts: (N, SIDE, SIDE).
        start: (N, 4) first guess: top, left, height and width of the parts in the wholes.
    """
    places = [np.empty((0, 4))]
    likeness = [np.empty(0)]
    for first in range(0, len(parts), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        place = _fit(wholes[some], parts[some], start[some])
        places.append(place)
        likeness.append(compare_detail(wholes[some], parts[some], place))
    return Alignment(np.concatenate(places), np.concatenate(likeness))


def compare_detail(wholes: Images, parts: Images, place: Places) -> NDArray[np.float64]:
    """Correlate the detail of parts with that of windows, where they overlap.

    Args:
        wholes: (N, SIDE, SIDE).
        parts: (N, SIDE, SIDE).
        place: (N, 4), as in `Alignment`.

    Returns:
        (N,) correlations, -1 where they hardly overlap or have no detail.
    """
    weights = _find_inside(place, SIDE)
    weights[:, :_RIM] = weights[:, -_RIM:] = weights[:, :, :_RIM] = weights[:, :, -_RIM:] = 0
    first, second = _take_detail(_sample(wholes, place)), _take_detail(parts)
    count = weights.sum(axis=(1, 2))
    total = np.maximum(count, 1)[:, None, None]
    first = (first - (first * weights).sum((1, 2), keepdims=True) / total) * weights
    second = (second - (second * weights).sum((1, 2), keepdims=True) / total) * weights
    power = np.sqrt((first**2).sum((1, 2)) * (second**2).sum((1, 2)))
    usable = (count >= _LEAST_OVERLAP * SIDE * SIDE) & (power > 1e-6)
    return np.where(usable, (first * second).sum((1, 2)) / np.maximum(power, 1e-6), -1.0)


def count_detailed(images: Images) -> NDArray[np.float64]:
    """Say on how many pixels of each image (N, SIDE, SIDE) its detail lies.

    The participation ratio: a few for one spot on black, some hundreds for a photograph.
    """
    power = _take_detail(images).astype(np.float64) ** 2
    return np.asarray(power.sum((1, 2)) ** 2 / np.maximum((power**2).sum((1, 2)), 1e-12))


def _fit(wholes: Images, parts: Images, start: Places) -> Places:
    place = start.astype(np.float64).copy()
    for side, steps in _ROUNDS:
        smooth_wholes, smooth_parts = _reduce(wholes, side), _reduce(parts, side)
        for _ in range(steps):
            place += _find_step(smooth_wholes, smooth_parts, place)
    return place


def _find_step(wholes: Images, parts: Images, place: Places) -> Places:
    """Give one step of Gauss and Newton, with gain and offset as further unknowns."""
    count, side = parts.shape[:2]
    seen = _sample(wholes, place)
    # Slopes of the window over its own share of the whole: by the chain rule those of the whole.
    slope_down, slope_across = np.gradient(seen, axis=(1, 2))
    slope_down *= (side / place[:, 2]).astype(np.float32)[:, None, None]
    slope_across *= (side / place[:, 3]).astype(np.float32)[:, None, None]
    steps = ((np.arange(side) + 0.5) / side).astype(np.float32)
    columns = np.empty((count, 6, side, side), np.float32)
    columns[:, 0], columns[:, 1] = slope_down, slope_across
    columns[:, 2], columns[:, 3] = slope_down * steps[:, None], slope_across * steps
    columns[:, 4], columns[:, 5] = seen, 1
    flat = columns.reshape(count, 6, -1)
    weighted = flat * _find_inside(place, side).reshape(count, 1, -1)
    normal = (weighted @ flat.transpose(0, 2, 1)).astype(np.float64)
    right = (weighted @ parts.reshape(count, -1, 1)).astype(np.float64)
    # A image without slopes leaves the system singular: a little on the diagonal holds it still.
    normal[:, range(6), range(6)] = normal[:, range(6), range(6)] * (1 + 1e-6) + 1e-3
    solved = np.linalg.solve(normal, right)[..., 0]
    gain = solved[:, 4:5]
    usable = np.abs(gain) > 0.1
    step = np.where(usable, solved[:, :4] / np.where(usable, gain, 1.0), 0.0)
    return np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)


def _sample(images: Images, place: Places) -> Images:
    """Read windows of images (N, S, S) linearly; outside a image its border goes on."""
    side = images.shape[1]
    sampled = np.empty(images.shape, np.float32)
    for image, window, (top, left, height, width) in zip(images, sampled, place, strict=True):
        # Pixel i of the window has its center at (i + 1/2) / side of it.
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


def _find_inside(place: Places, side: int) -> Images:
    """Give 1 where a pixel of a window (N, S, S) lies inside the image, else 0."""
    steps = (np.arange(side) + 0.5) / side
    margin = 0.25 / side
    inside = []
    for axis in (0, 1):
        position = place[:, axis, None] + place[:, axis + 2, None] * steps
        inside.append(((position > -margin) & (position < 1 + margin)).astype(np.float32))
    return np.asarray(inside[0][:, :, None] * inside[1][:, None, :])


def _take_detail(images: Images) -> Images:
    return _blur(images, _FINE) - _blur(images, _COARSE)


def _reduce(images: Images, side: int) -> Images:
    """Blur by one pixel of the wanted side, and reduce to it."""
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

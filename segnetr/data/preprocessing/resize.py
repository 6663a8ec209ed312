"""Resize images and masks in the same way in the cache, in training and in prediction."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# OpenCV's area interpolation supports at most this number of channels.
_MAX_CHANNELS = 4


def reduce_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return the size with a shorter side of `side` and the same aspect ratio, at most `size`.

    Args:
        size: (height, width) in pixels.
        side: Length of the shorter side in pixels.

    Returns:
        (height, width), each at least 1.
    """
    height, width = size
    shorter = min(height, width)
    if shorter <= side:
        return size
    # Integer arithmetic only, so that every machine computes the same size.
    return (
        max(1, (2 * height * side + shorter) // (2 * shorter)),
        max(1, (2 * width * side + shorter) // (2 * shorter)),
    )


def resize_image(image: Array, size: tuple[int, int]) -> Array:
    """Resize an image: area averages along a shrinking side, linear along a growing one.

    Args:
        image: (H, W, C), uint8, uint16 or float32.
        size: (height, width) in pixels.

    Returns:
        (height, width, C) of the same type. The same array if the size is unchanged.
    """
    height, width = image.shape[:2]
    # In two passes, because OpenCV uses linear interpolation on both sides if only one shrinks.
    shrunk = min(height, size[0]), min(width, size[1])
    return _resize(_resize(image, shrunk, cv2.INTER_AREA), size, cv2.INTER_LINEAR)


def resize_mask(mask: Array, size: tuple[int, int]) -> Array:
    """Resize a mask of class indices.

    A mask with the values 0 and 1 is resized as an image and thresholded at one half, which
    preserves thin structures and smooth edges. Other masks use the nearest class index.

    Args:
        mask: (H, W) uint8.
        size: (height, width) in pixels.

    Returns:
        (height, width) uint8. The same array if the size is unchanged.
    """
    if mask.shape == size:
        return mask
    if is_binary(mask):
        return cut_soft_mask(resize_image(soften_mask(mask), size))
    return _resize(mask[..., None], size, cv2.INTER_NEAREST_EXACT)[..., 0]


def resize_labels(mask: Array, size: tuple[int, int]) -> Array:
    """Resize a mask with any number of classes: each pixel gets the class with the largest share.

    Unlike nearest-neighbor resizing this preserves smooth borders, and thin structures that cover
    more of a pixel than any other class. Ties go to the lower class.

    Args:
        mask: (H, W) uint8.
        size: (height, width) in pixels.

    Returns:
        (height, width) uint8. The same array if the size is unchanged.
    """
    if mask.shape == size:
        return mask
    present = np.flatnonzero(np.bincount(mask.reshape(-1), minlength=1))
    best = np.zeros(size, dtype=np.float32)
    result = np.full(size, present[0], dtype=np.uint8)
    for label in present:
        share = resize_image((mask == label).astype(np.float32)[..., None], size)[..., 0]
        result[share > best] = label
        best = np.maximum(best, share)
    return result


def is_binary(mask: Array) -> bool:
    """Return whether a mask has no class index above 1."""
    return int(mask.max()) <= 1


def soften_mask(mask: Array) -> Array:
    """Convert a (H, W) mask of 0 and 1 to a (H, W, 1) image of 0 and 255."""
    return (mask * np.uint8(255))[..., None]


def cut_soft_mask(image: Array) -> Array:
    """Convert a (H, W, 1) image of 0..255 to a (H, W) mask of 0 and 1."""
    return (image[..., 0] >= 128).astype(np.uint8)


def _resize(image: Array, size: tuple[int, int], interpolation: int) -> Array:
    if image.shape[:2] == size:
        return image
    channels = image.shape[2]
    chunks = [
        np.asarray(
            cv2.resize(
                image[..., start : start + _MAX_CHANNELS],
                (size[1], size[0]),
                interpolation=interpolation,
            )
        ).reshape(*size, -1)  # OpenCV drops an axis of length 1
        for start in range(0, channels, _MAX_CHANNELS)
    ]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks, axis=2)

"""Bringing images and masks to another size, the same way in the cache, in training and later."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# OpenCV's area interpolation refuses more channels at once.
_CHANNELS_AT_ONCE = 4


def reduce_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Give the size whose shorter side is `side`, aspect kept, never larger than `size`.

    Args:
        size: (height, width) in pixels.
        side: Wanted length of the shorter side in pixels.

    Returns:
        (height, width), each at least 1.
    """
    height, width = size
    shorter = min(height, width)
    if shorter <= side:
        return size
    # Whole numbers only: every machine and every builder must find the same size.
    return (
        max(1, (2 * height * side + shorter) // (2 * shorter)),
        max(1, (2 * width * side + shorter) // (2 * shorter)),
    )


def resize_image(image: Array, size: tuple[int, int]) -> Array:
    """Resize a image: mean over areas along a shrinking side, linear along a growing one.

    Args:
        image: (H, W, C), uint8, uint16 or float32.
        size: (height, width) in pixels.

    Returns:
        (height, width, C) of the same type; the image itself where the size is right already.
    """
    height, width = image.shape[:2]
    # In two passes, because OpenCV drops to linear on both sides when only one shrinks.
    shrunk = min(height, size[0]), min(width, size[1])
    return _resize(_resize(image, shrunk, cv2.INTER_AREA), size, cv2.INTER_LINEAR)


def resize_mask(mask: Array, size: tuple[int, int]) -> Array:
    """Resize a mask of class indices.

    A mask of the values 0 and 1 is resized as a image and cut at one half, which keeps thin
    parts and smooth edges; class indices above 1 have no mean, so the nearest one is taken.

    Args:
        mask: (H, W) uint8.
        size: (height, width) in pixels.

    Returns:
        (height, width) uint8; the mask itself where the size is right already.
    """
    if mask.shape == size:
        return mask
    if is_binary(mask):
        return cut_soft_mask(resize_image(soften_mask(mask), size))
    return _resize(mask[..., None], size, cv2.INTER_NEAREST_EXACT)[..., 0]


def resize_labels(mask: Array, size: tuple[int, int]) -> Array:
    """Resize a mask of any classes label by label, each as a soft image; the highest share wins.

    Unlike the nearest index this keeps smooth borders, and thin parts as far as they cover more of
    a pixel than anything else. Of equal shares the lower class wins.

    Args:
        mask: (H, W) uint8.
        size: (height, width) in pixels.

    Returns:
        (height, width) uint8; the mask itself where the size is right already.
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
    """Say whether a mask holds no class index above 1."""
    return int(mask.max()) <= 1


def soften_mask(mask: Array) -> Array:
    """Turn a (H, W) mask of 0 and 1 into a (H, W, 1) image of 0 and 255."""
    return (mask * np.uint8(255))[..., None]


def cut_soft_mask(image: Array) -> Array:
    """Turn a (H, W, 1) image of 0..255 back into a (H, W) mask of 0 and 1."""
    return (image[..., 0] >= 128).astype(np.uint8)


def _resize(image: Array, size: tuple[int, int], interpolation: int) -> Array:
    if image.shape[:2] == size:
        return image
    channels = image.shape[2]
    parts = [
        np.asarray(
            cv2.resize(
                image[..., start : start + _CHANNELS_AT_ONCE],
                (size[1], size[0]),
                interpolation=interpolation,
            )
        ).reshape(*size, -1)  # OpenCV drops an axis of length 1
        for start in range(0, channels, _CHANNELS_AT_ONCE)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

"""Resizing with an antialiasing filter, as the published training and evaluation code does.

`resize.py` averages areas, which keeps masks and images aligned. Here the values must equal those
that official weights were evaluated with: Pillow's.
"""

from typing import Literal

import numpy as np
from PIL import Image

from segnetr.data.preprocessing.resize import Array

Filter = Literal["bilinear", "bicubic"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resample(image: Array, size: tuple[int, int], filter_name: Filter) -> Array:
    """Resize a image with a filter as wide as the shrinking asks for.

    Args:
        image: (H, W, C), uint8 or float32 in 0..1.
        size: (height, width) in pixels.
        filter_name: Which filter.

    Returns:
        (height, width, C) of the same type and range; a bicubic filter overshoots, and is cut.
    """
    if image.shape[:2] == size:
        return image
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return _resize(image, size, filter_name)
    channels = [_resize(image[..., k], size, filter_name) for k in range(image.shape[2])]
    resized = np.stack(channels, axis=2)
    return resized if image.dtype == np.uint8 else resized.clip(0, 1)


def _resize(plane: Array, size: tuple[int, int], filter_name: Filter) -> Array:
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize((size[1], size[0]), _FILTERS[filter_name]))

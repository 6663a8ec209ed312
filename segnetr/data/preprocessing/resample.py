"""Resize classification images with Pillow's antialiasing filters.

Published weights were trained and evaluated with these filters. `resize.py` averages areas instead,
which keeps images and masks aligned.
"""

from typing import Literal

import numpy as np
from PIL import Image

from segnetr.data.preprocessing.resize import Array

Filter = Literal["bilinear", "bicubic"]

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resample(image: Array, size: tuple[int, int], filter_name: Filter) -> Array:
    """Resize an image with a filter whose width depends on the reduction.

    Args:
        image: (H, W, C), uint8 or float32 in 0..1.
        size: (height, width) in pixels.
        filter_name: The filter.

    Returns:
        (height, width, C) of the same type and range. Overshoots of the bicubic filter are clipped.
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

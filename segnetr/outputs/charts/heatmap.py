"""Draw a heatmap over its image."""

import cv2
import numpy as np
from numpy.typing import NDArray

from segnetr.data.preprocessing.resize import resize_image
from segnetr.outputs.masks.overlay import OVERLAY_SIDE, ImageArray

_COLORS = cv2.COLORMAP_TURBO
_STRONGEST = 0.6
"""Opacity of the color where the map is 1; the opacity is proportional to the map."""


def draw_heatmap(
    image: NDArray[np.uint8], heat: NDArray[np.float32], *, longest: int = OVERLAY_SIDE
) -> ImageArray:
    """Color an image by a map; where the map is 0, the image is unchanged.

    Args:
        image: (H, W, 1) or (H, W, 3).
        heat: (h, w) in 0..1, for the whole image; resized to it.
        longest: Longest side of the result in pixels; larger images are reduced.

    Returns:
        (h', w', 3), RGB.
    """
    height, width = image.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    shown = np.broadcast_to(resize_image(image, size), (*size, 3)).astype(np.float32)
    shares = resize_image(heat[..., None], size)
    levels = np.rint(shares * 255).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, _COLORS), cv2.COLOR_BGR2RGB)
    cover = np.float32(_STRONGEST) * shares
    return np.asarray(np.rint(shown * (1 - cover) + colors * cover), dtype=np.uint8)

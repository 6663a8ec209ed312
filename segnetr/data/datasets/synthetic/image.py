"""Generate a synthetic dermoscopic image with its exact mask.

Skin is rendered as light that is absorbed by pigment and blood: the color is the skin color times
exp(-amount x absorption), and layers multiply. The goal is not realism but the difficulties of real
images: dark corners, hair, ink and freckles that are darker than a faint lesion, borders that fade,
and pigment of several tones. A threshold alone does not segment it.
"""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from segnetr.data.datasets.synthetic.artifacts import (
    add_bubbles,
    add_glare,
    add_hair,
    add_ink,
    add_ruler,
    add_tube,
)
from segnetr.data.datasets.synthetic.lesion import Lesion, draw_lesion
from segnetr.data.datasets.synthetic.noise import Field, draw_cells, draw_clouds

# Relative absorption of red, green and blue light, chosen by eye.
_MELANIN = np.array([0.68, 1.0, 1.2], np.float32)
_BLOOD = np.array([0.12, 0.85, 0.75], np.float32)
_VEIL = np.array([0.47, 0.50, 0.58], np.float32)

# Skin under polarized light in a dermoscope: pale, pink, tan, brown.
_SKIN = np.array(
    [[0.90, 0.76, 0.70], [0.87, 0.66, 0.62], [0.82, 0.62, 0.50], [0.72, 0.52, 0.40]], np.float32
)


def draw_synthetic_image(
    rng: Generator, height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw an image of skin with one lesion.

    Args:
        rng: Random generator. The same state gives the same image.
        height: H, in pixels.
        width: W, in pixels.

    Returns:
        The image (H, W, 3), RGB, and the mask of the lesion (H, W).
    """
    lesion = draw_lesion(rng, height, width)
    image = _draw_skin(rng, height, width, lesion)
    for add, chance in (
        (add_ink, 0.08),
        (add_glare, 0.35),
        (add_hair, 0.55),
        (add_bubbles, 0.3),
        (add_ruler, 0.25),
    ):
        if rng.random() < chance:
            image = add(rng, image)
    return _take_photograph(rng, add_tube(rng, image)), lesion.mask


def _draw_skin(rng: Generator, height: int, width: int, lesion: Lesion) -> Field:
    """Draw skin with the lesion, (H, W, 3)."""
    weights = rng.dirichlet(np.full(len(_SKIN), 0.5)).astype(np.float32)
    tone = weights @ _SKIN * rng.uniform(0.92, 1.08, 3).astype(np.float32)
    mottle = draw_clouds(rng, height, width, coarsest=width / 3, octaves=6, decay=0.7)
    flush = draw_clouds(rng, height, width, coarsest=width / 2, octaves=4)
    melanin = 0.10 + 0.035 * mottle + lesion.melanin + _draw_freckles(rng, height, width)
    blood = 0.08 + rng.uniform(0.02, 0.07) * flush + lesion.blood
    # Fine furrows divide the skin into small cells.
    furrows = draw_cells(rng, height, width, spacing=rng.uniform(7.0, 14.0))
    melanin -= rng.uniform(0.0, 0.05) * np.exp(-((furrows.edge / 0.15) ** 2))

    light = np.exp(-melanin[..., None] * _MELANIN - blood[..., None] * _BLOOD)
    image = tone * light
    veil = lesion.veil[..., None]
    return image * (1 - veil) + _VEIL * veil


def _draw_freckles(rng: Generator, height: int, width: int) -> Field:
    """Draw small pigment spots outside the lesion, in some images."""
    if rng.random() > 0.35:
        return np.zeros((height, width), np.float32)
    cells = draw_cells(rng, height, width, spacing=rng.uniform(0.08, 0.2) * width)
    spots = np.exp(-((cells.center / rng.uniform(0.1, 0.25)) ** 2))
    is_spot = cells.chance < rng.uniform(0.1, 0.4)
    return np.asarray(rng.uniform(0.08, 0.3) * spots * is_spot, np.float32)


def _take_photograph(rng: Generator, image: Field) -> NDArray[np.uint8]:
    """Add the effects of light and camera: brightness gradient, color cast, blur, noise."""
    height, width = image.shape[:2]
    rows, columns = np.indices((height, width), np.float32)
    gradient = rng.normal(0, 0.08, 2)
    image = (
        image
        * (1 + gradient[0] * (rows / height - 0.5) + gradient[1] * (columns / width - 0.5))[
            ..., None
        ]
    )
    image = image * rng.normal(1, 0.03, 3) * rng.uniform(0.82, 1.1)
    blur = rng.uniform(0.4, 1.0)
    image = np.asarray(cv2.GaussianBlur(image.astype(np.float32), (0, 0), blur), np.float32)
    image = image + rng.normal(0, rng.uniform(0.004, 0.014), image.shape)
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)

"""Shape and pigment of a synthetic lesion."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from segnetr.data.datasets.synthetic.noise import Field, draw_cells, draw_clouds, smooth_step

# Number of directions in which an outline is sampled.
_ANGLES = 721


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesion:
    """Optical properties of a lesion, as fields (H, W).

    Attributes:
        mask: The ground truth.
        melanin: Amount of brown pigment, from 0.
        blood: Amount of redness, from 0.
        veil: Share of blue-white veil, 0 to 1.
    """

    mask: NDArray[np.bool_]
    melanin: Field
    blood: Field
    veil: Field


def draw_lesion(rng: Generator, height: int, width: int) -> Lesion:
    """Draw a lesion that covers 3 to 50 % of the image, with high to low contrast."""
    mask = _draw_shape(rng, height, width)
    distance = _measure_depth(mask)
    side = float(np.sqrt(mask.sum()))
    # Width of the fading border in pixels, which varies along the border.
    softness = side * rng.choice([0.012, 0.025, 0.045], p=[0.35, 0.4, 0.25])
    patches = draw_clouds(rng, height, width, coarsest=side * 0.8, octaves=2)
    softness = softness * np.exp(0.4 * patches)
    ragged = draw_clouds(rng, height, width, coarsest=side * 0.15, octaves=3) * 0.35
    body = 1 / (1 + np.exp(-np.clip(distance / softness + ragged, -30, 30)))

    strength = rng.choice([0.22, 0.45, 0.8, 1.25], p=[0.15, 0.25, 0.35, 0.25])
    strength *= rng.uniform(0.85, 1.2)
    pigment = _draw_pigment(rng, height, width, side=side, distance=distance)
    is_pink = rng.random() < 0.15
    melanin = body * pigment * strength * (0.35 if is_pink else 1.0)
    blood = body * strength * (rng.uniform(0.5, 0.8) if is_pink else rng.uniform(-0.1, 0.25))
    return Lesion(
        mask=mask,
        melanin=melanin.astype(np.float32),
        blood=(blood * np.exp(0.25 * patches)).astype(np.float32),
        veil=(_draw_veil(rng, height, width, side=side) * body).astype(np.float32),
    )


def _draw_shape(rng: Generator, height: int, width: int) -> NDArray[np.bool_]:
    """Draw where a lesion is: one piece without holes."""
    rows, columns = np.indices((height, width), np.float32)
    warp = rng.choice([0.012, 0.03, 0.065]) * min(height, width)
    coarsest = min(height, width) / 3
    rows += warp * draw_clouds(rng, height, width, coarsest=coarsest, octaves=4)
    columns += warp * draw_clouds(rng, height, width, coarsest=coarsest, octaves=4)

    center = np.array([height, width]) * rng.uniform(0.4, 0.6, 2)
    depth = _draw_lobe(rng, rows, columns, center)
    for _ in range(rng.choice([0, 1, 2], p=[0.6, 0.25, 0.15])):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 0.9)
        aside = center + 0.2 * min(height, width) * reach * np.array([np.sin(angle), np.cos(angle)])
        depth = np.minimum(depth, _draw_lobe(rng, rows, columns, aside) * rng.uniform(1.0, 1.5))

    share = np.exp(rng.uniform(np.log(0.035), np.log(0.48)))
    mask = depth <= np.quantile(depth, share)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    whole = np.zeros((height, width), np.uint8)
    cv2.drawContours(whole, [max(contours, key=cv2.contourArea)], 0, 1, cv2.FILLED)
    return whole.astype(np.bool_)


def _measure_depth(mask: NDArray[np.bool_]) -> Field:
    """Return each pixel's distance to the border in pixels, positive inside."""
    inside, outside = (
        cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for side in (mask, ~mask)
    )
    return inside - outside


def _draw_lobe(rng: Generator, rows: Field, columns: Field, center: NDArray[np.float64]) -> Field:
    """Draw a wavy ellipse. Returns each pixel's radius relative to the outline."""
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(0.6, 1.0)
    y, x = rows - center[0], columns - center[1]
    along = np.cos(turn) * x + np.sin(turn) * y
    across = (np.cos(turn) * y - np.sin(turn) * x) / stretch
    outline = np.ones(_ANGLES, np.float32)
    angles = np.linspace(-np.pi, np.pi, _ANGLES, dtype=np.float32)
    for order in range(2, 9):
        size = rng.normal(0, 0.2 / order**1.2)
        outline += size * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    radius = np.interp(np.arctan2(across, along), angles, np.maximum(outline, 0.3))
    return np.asarray(np.hypot(along, across) / radius)


def _draw_pigment(
    rng: Generator, height: int, width: int, *, side: float, distance: Field
) -> Field:
    """Draw the pigment pattern within a lesion, with a mean of about 1."""
    tones = draw_clouds(rng, height, width, coarsest=side * 0.45, octaves=5)
    pigment: Field = np.exp(rng.uniform(0.12, 0.4) * tones)
    # Most lesions are darker in the center, some at the border.
    depth = np.clip(distance / (0.4 * side), 0, 1)
    pigment *= 1 + rng.uniform(-0.25, 0.6) * (depth - 0.4)
    if rng.random() < 0.5:
        region = smooth_step(draw_clouds(rng, height, width, coarsest=side, octaves=3), 0.4, 1.2)
        pigment *= 1 + rng.uniform(0.4, 1.2) * region
    if rng.random() < 0.25:  # regression: a pale, scar-like region
        region = smooth_step(draw_clouds(rng, height, width, coarsest=side, octaves=3), 0.6, 1.3)
        pigment *= 1 - rng.uniform(0.5, 0.85) * region
    return pigment * _draw_structure(rng, height, width, side=side)


def _draw_structure(rng: Generator, height: int, width: int, *, side: float) -> Field:
    """Draw a pigment network, globules, or neither."""
    kind = rng.choice(["network", "globules", "none"], p=[0.45, 0.25, 0.3])
    if kind == "none":
        return np.ones((height, width), np.float32)
    extent = smooth_step(draw_clouds(rng, height, width, coarsest=side, octaves=2), -0.9, 0.6)
    cells = draw_cells(rng, height, width, spacing=rng.uniform(5.0, 9.0))
    if kind == "network":
        lines = np.exp(-((cells.edge / 0.3) ** 2))
        return np.asarray(1 + extent * rng.uniform(0.35, 0.8) * (lines - 0.45))
    dots = np.exp(-((cells.center / 0.3) ** 2)) * (cells.chance < rng.uniform(0.4, 0.8))
    return np.asarray(1 + extent * rng.uniform(0.5, 1.1) * dots)


def _draw_veil(rng: Generator, height: int, width: int, *, side: float) -> Field:
    if rng.random() > 0.2:
        return np.zeros((height, width), np.float32)
    patch = draw_clouds(rng, height, width, coarsest=side * 0.7, octaves=3)
    return float(rng.uniform(0.3, 0.65)) * smooth_step(patch, 0.3, 1.3)

"""Random fields for synthetic images: clouds and cells."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

# Real numbers per pixel of an image, (H, W) or (H, W, 3).
Field = NDArray[np.floating[Any]]


def draw_clouds(
    rng: Generator, height: int, width: int, *, coarsest: float, octaves: int, decay: float = 0.55
) -> Field:
    """Draw smooth noise at several scales.

    Args:
        rng: Random generator.
        height: H, in pixels.
        width: W, in pixels.
        coarsest: Size of the largest clouds, in pixels.
        octaves: Number of scales. Each is half as coarse as the previous one.
        decay: Amplitude of a scale relative to the previous one.

    Returns:
        A field (H, W) with mean 0 and standard deviation 1.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cell = max(coarsest / 2**octave, 1.0)
        shape = (int(np.ceil(height / cell)) + 3, int(np.ceil(width / cell)) + 3)
        coarse = rng.standard_normal(shape, dtype=np.float32)
        # Crop one grid cell on each side, where the interpolation has no neighbors.
        grid = cv2.resize(coarse, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
        margin = int(cell)
        total += decay**octave * grid[margin : margin + height, margin : margin + width]
    return np.asarray((total - total.mean()) / max(float(total.std()), 1e-6))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """Irregular cells around scattered centers, as fields (H, W).

    Attributes:
        center: Distance to the nearest center, relative to the mean spacing.
        edge: 0 on the edges between cells, increasing towards the centers, likewise.
        chance: A random number from 0 to 1 that is constant within a cell.
    """

    center: Field
    edge: Field
    chance: Field


def draw_cells(rng: Generator, height: int, width: int, *, spacing: float) -> Cells:
    """Draw cells whose centers are about `spacing` pixels apart."""
    shape = (int(height / spacing) + 3, int(width / spacing) + 3)
    jitter = rng.uniform(0.08, 0.92, (2, *shape)).astype(np.float32)
    centers = jitter + np.indices(shape, dtype=np.float32)
    chances = rng.uniform(size=shape).astype(np.float32)
    # Coordinates in cells, with a margin of one cell around the image.
    y = (np.arange(height, dtype=np.float32) / np.float32(spacing) + 1)[:, None]
    x = (np.arange(width, dtype=np.float32) / np.float32(spacing) + 1)[None, :]

    nearest = np.full((height, width), np.inf, np.float32)
    second, chance = nearest.copy(), np.zeros_like(nearest)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            rows, columns = y[:, 0].astype(np.intp) + down, x[0].astype(np.intp) + right
            values = [field[rows][:, columns] for field in (*centers, chances)]
            distance = (values[0] - y) ** 2 + (values[1] - x) ** 2
            chance = np.where(distance < nearest, values[2], chance)
            second = np.minimum(second, np.maximum(nearest, distance))
            nearest = np.minimum(nearest, distance)
    nearest, second = np.sqrt(nearest), np.sqrt(second)
    return Cells(center=nearest, edge=second - nearest, chance=chance)


def smooth_step(values: Field, low: float, high: float) -> Field:
    """Rise smoothly from 0 at `low` to 1 at `high`, or fall if `low` is above `high`."""
    share: Field = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(share * share * (3 - 2 * share))

"""Measure a case: size, spacing, intensities, class shares."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segnetr.data.readers.image_file import ClassValues
from segnetr.data.readers.read_files import read_ground_truth, read_image
from segnetr.errors import ReadError

_MAX_SAMPLES = 1_000_000  # values used for the percentiles of a large image
_PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseMeasures:
    """Measurements of an image and its mask.

    Attributes:
        size: Pixels or voxels along each axis, without channels: (H, W) or (X, Y, Z).
        channels: Values per pixel.
        value_type: Data type of the file, for example "uint8".
        spacing: Voxel size in mm. None for images.
        low: 1st percentile of all values.
        mean: Mean of all values.
        high: 99th percentile of all values.
        shares: Share of pixels per class, background first. Empty without a mask.
    """

    size: tuple[int, ...]
    channels: int
    value_type: str
    spacing: tuple[float, ...] | None
    low: float
    mean: float
    high: float
    shares: tuple[float, ...]


def measure_case(
    image: Path,
    masks: Sequence[Path],
    classes: int,
    values: ClassValues | None,
    max_pixels: int,
    volume_channels: int = 1,
) -> CaseMeasures | None:
    """Read and measure a case. Return None if it cannot be read; the audit reports the reason.

    Args:
        image: The image file.
        masks: The mask files. May be empty.
        classes: Number of classes, including background.
        values: As in `read_mask_file`.
        max_pixels: As in `read_image`.
        volume_channels: As in `read_image`.
    """
    try:
        read = read_image(image, volume_channels=volume_channels, max_pixels=max_pixels)
        ground_truth = None
        if masks:
            ground_truth = read_ground_truth(
                masks, classes=classes, values=values, max_pixels=max_pixels
            ).array
    except ReadError:
        return None
    gray = read.array.reshape(-1)
    low, high = np.percentile(gray[:: max(1, gray.size // _MAX_SAMPLES)], _PERCENTILES)
    shares: Sequence[float] = ()
    if ground_truth is not None:
        shares = (np.bincount(ground_truth.ravel(), minlength=classes) / ground_truth.size).tolist()
    return CaseMeasures(
        size=read.grid,
        channels=read.array.size // math.prod(read.grid),
        value_type=read.array.dtype.name,
        spacing=read.spacing,
        low=float(low),
        mean=float(gray.mean(dtype=np.float64)),
        high=float(high),
        shares=tuple(shares),
    )

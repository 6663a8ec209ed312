"""What one case is like: size, spacing, gray values, shares of the classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segnetr.data.readers.image_file import ClassValues
from segnetr.data.readers.read_files import read_ground_truth, read_image
from segnetr.errors import ReadError

_SAMPLE = 1_000_000  # values by which the percentiles of a large image are found
_SHARE = (1.0, 99.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseMeasures:
    """Facts about one image and its mask.

    Attributes:
        size: Pixels or voxels along each axis, without channels: (H, W) or (X, Y, Z).
        channels: Values of a pixel.
        value_type: Of the values in the file, as "uint8".
        spacing: Voxel sides in mm; None: a image.
        low: 1st percentile of all values.
        mean: Of all values.
        high: 99th percentile of all values.
        shares: Share of the pixels of each class, background first; empty without a mask.
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
    """Read a case and measure it; None if it cannot be read, which the audit says why.

    Args:
        image: The image file.
        masks: The files of its ground truth, if there are any.
        classes: Number of classes, background included.
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
    low, high = np.percentile(gray[:: max(1, gray.size // _SAMPLE)], _SHARE)
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

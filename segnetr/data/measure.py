"""What one case is like: size, spacing, grey values, shares of the classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segnetr.data.read_files import read_image, read_mask
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
        spacing: Voxel sides in mm; None: a picture.
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
    image: Path, mask: Path | None, classes: int, max_pixels: int
) -> CaseMeasures | None:
    """Read a case and measure it; None if it cannot be read, which the audit says why.

    Args:
        image: The image file.
        mask: The mask file, or None.
        classes: Number of classes, background included.
        max_pixels: As in `read_image`.
    """
    try:
        read = read_image(image, max_pixels=max_pixels)
        truth = None if mask is None else read_mask(mask, classes=classes, max_pixels=max_pixels)
    except ReadError:
        return None
    values = read.array.reshape(-1)
    low, high = np.percentile(values[:: max(1, values.size // _SAMPLE)], _SHARE)
    is_picture = read.kind == "picture"
    shares: Sequence[float] = ()
    if truth is not None:
        shares = (np.bincount(truth.ravel(), minlength=classes) / truth.size).tolist()
    return CaseMeasures(
        size=read.array.shape[:2] if is_picture else read.array.shape,
        channels=read.array.shape[2] if is_picture else 1,
        value_type=read.array.dtype.name,
        spacing=read.spacing,
        low=float(low),
        mean=float(values.mean(dtype=np.float64)),
        high=float(high),
        shares=tuple(shares),
    )

"""Resample slices to another pixel spacing with SimpleITK.

Both grids cover the same area, so the outer edges coincide and not the centers of the outer pixels.
Values are interpolated linearly. A shrinking axis is smoothed first, because interpolation alone
would skip pixels. SimpleITK is imported on first use.
"""

import math

import numpy as np
from numpy.typing import NDArray

from segnetr.data.preprocessing.resize import Array

# SimpleITK computes the kernel with Bessel functions, which overflow above a variance of 700.
_MAX_VARIANCE = 600.0


def resample_slice(image: Array, size: tuple[int, int]) -> Array:
    """Resample a slice to `size` over the same area.

    A shrinking axis is smoothed with a Gaussian of standard deviation (factor - 1) / 2 in old
    pixels, where factor is the old number of pixels over the new one.

    Args:
        image: (H, W, C), uint8, uint16 or float32.
        size: (height, width) in pixels.

    Returns:
        (height, width, C) of the same type; integers are rounded. The same array if the size is
        unchanged.
    """
    if image.shape[:2] == size:
        return image
    channels = [_resample_channel(image[..., i], size) for i in range(image.shape[2])]
    result = np.stack(channels, axis=2)
    if image.dtype.kind == "u":
        result = np.rint(result).clip(0, np.iinfo(image.dtype).max)
    return result.astype(image.dtype, copy=False)


def count_resampling_bytes(old: tuple[int, int], new: tuple[int, int], *, channels: int) -> int:
    """Return the memory that `resample_slice` needs in addition to its input, in bytes.

    Args:
        old: (height, width) of the slice.
        new: (height, width) of the result.
        channels: Channels of the slice.
    """
    if old == new:
        return 0
    # Of the old size: a copy, the SimpleITK image, and two while it is smoothed. Of the new size:
    # the SimpleITK image, and three copies of all channels while they are rounded.
    return 4 * (4 * math.prod(old) + (1 + 3 * channels) * math.prod(new))


def _resample_channel(channel: Array, size: tuple[int, int]) -> NDArray[np.float32]:
    # Imported here, so that images do not need the readers of volumes.
    from segnetr.data.readers.itk import load_simpleitk

    sitk = load_simpleitk()
    # SimpleITK orders axes as (x, y).
    factors = channel.shape[1] / size[1], channel.shape[0] / size[0]
    source = sitk.GetImageFromArray(np.ascontiguousarray(channel, np.float32))
    if max(factors) > 1:
        smoothing = sitk.DiscreteGaussianImageFilter()
        smoothing.SetVariance([_find_variance(factor) for factor in factors])
        smoothing.SetMaximumKernelWidth(8 * max(channel.shape))
        smoothing.SetUseImageSpacing(False)
        smoothing.SetNumberOfThreads(1)
        source = smoothing.Execute(source)
    resampling = sitk.ResampleImageFilter()
    resampling.SetSize((size[1], size[0]))
    resampling.SetOutputSpacing(factors)
    resampling.SetOutputOrigin([(factor - 1) / 2 for factor in factors])
    resampling.SetInterpolator(sitk.sitkLinear)
    # The center of an outer new pixel can lie outside the centers of the old ones.
    resampling.SetUseNearestNeighborExtrapolator(True)
    resampling.SetNumberOfThreads(1)
    values: NDArray[np.float32] = sitk.GetArrayFromImage(resampling.Execute(source))
    return values


def _find_variance(factor: float) -> float:
    """Return the variance of the smoothing along an axis that shrinks by `factor`, in pixels."""
    return min(max(factor - 1, 0.0) ** 2 / 4, _MAX_VARIANCE)

"""Images and volumes as stacks of slices, in the same way for training and prediction.

The steps are always in the same order: scale the values over the whole volume, take a slice with
its neighbors, resample it to the pixel size, pad it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.intensity import IntensityConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.preprocessing.resize import Array
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.volumes.intensity import scale_volume
from segnetr.data.volumes.resample import resample_slice


class Slices(Protocol):
    """Slices as network input, from memory or from a file."""

    @property
    def plane(self) -> tuple[int, int]:
        """(height, width) of the slices in pixels."""
        ...

    @property
    def depth(self) -> int:
        """Number of slices, D."""
        ...

    def view(self, index: int) -> Array:
        """Return a slice with its k neighbors on either side: (h, w, C * (2 k + 1))."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceStack:
    """The slices of a volume. An image is a single slice.

    Attributes:
        array: (H, W, C, D), on the grid of the file.
        plane: (height, width) in pixels that slices are resampled to. (H, W) if they are not.
        neighbors: Neighboring slices on either side that are added as channels.
    """

    array: NDArray[Any]
    plane: tuple[int, int]
    neighbors: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """(H, W) of a slice in the file."""
        height, width = self.array.shape[:2]
        return height, width

    @property
    def depth(self) -> int:
        """Number of slices, D."""
        return int(self.array.shape[3])

    def view(self, index: int) -> Array:
        """Return a slice with its neighbors at the size `plane`: (h, w, C * (2 k + 1)).

        Channels are ordered by slice, from the lowest neighbor to the highest. Beyond either end,
        the last slice is repeated. uint8 and uint16 are preserved, other types become float32.
        """
        indices = list_neighbors(index, self.neighbors, depth=self.depth)
        return stack_slices([self.array[..., i] for i in indices], self.plane)


def open_stack(image: ImageFile, slices: SliceConfig, intensity: IntensityConfig) -> SliceStack:
    """Return the slices of a file, with values scaled over the whole volume if configured.

    Args:
        image: An image, which is one slice, or a volume.
        slices: Axis, neighbors and pixel size.
        intensity: The kinds "fixed" and "per_image" are not applied here.
    """
    array = image.array
    if intensity.is_of_volumes:
        array = scale_volume(array, intensity)
    if image.kind == "image":
        array = array[..., None]
    else:
        channels = array[..., None] if array.ndim == 3 else array
        # (X, Y, Z, C) to (H, W, C, D): the other two axes stay in order.
        array = np.moveaxis(channels, slices.axis, -1)
    height, width = array.shape[:2]
    plane = find_slice_plane((height, width), image.spacing, slices)
    return SliceStack(array=array, plane=plane, neighbors=slices.neighbors)


def list_neighbors(index: int, neighbors: int, *, depth: int) -> list[int]:
    """Return the indices of a slice and its neighbors. Beyond either end, the last is repeated."""
    indices = range(index - neighbors, index + neighbors + 1)
    return [min(max(i, 0), depth - 1) for i in indices]


def stack_slices(slices: Sequence[Array], plane: tuple[int, int]) -> Array:
    """Concatenate slices (H, W, C) along the channels and resample them to `plane`."""
    image = np.ascontiguousarray(np.concatenate(slices, axis=2))
    if image.dtype not in (np.uint8, np.uint16):
        image = image.astype(np.float32)
    return resample_slice(image, plane)


def restore_axis(stacked: NDArray[Any], axis: int) -> NDArray[Any]:
    """Move the slice axis of (..., H, W, D) back to its position in (..., X, Y, Z)."""
    return np.moveaxis(stacked, -1, stacked.ndim - 3 + axis)


def find_plane(
    grid: tuple[int, int],
    spacing: tuple[float, float] | None,
    target: tuple[float, float] | None,
) -> tuple[int, int]:
    """Return the size of a slice after resampling to another pixel size, at least one pixel.

    Args:
        grid: (height, width) in pixels of the file.
        spacing: Pixel size of the file in mm. None: unknown, the slice is not resampled.
        target: Pixel size to resample to in mm. None: do not resample.
    """
    if spacing is None or target is None:
        return grid
    height, width = (
        max(1, round(side * own / to)) for side, own, to in zip(grid, spacing, target, strict=True)
    )
    return height, width


def find_slice_plane(
    grid: tuple[int, int], spacing: tuple[float, ...] | None, slices: SliceConfig
) -> tuple[int, int]:
    """Return the size of a file's slices, given the spacing of its three axes in mm."""
    if spacing is None:
        return grid
    height, width = (side for axis, side in enumerate(spacing) if axis != slices.axis)
    return find_plane(grid, (height, width), slices.spacing_mm)


def pad_plane(array: Array, size: tuple[int, int], *, value: Any) -> Array:
    """Pad (h, w) or (h, w, C) evenly on both sides to at least `size`.

    Args:
        array: The slice or its mask.
        size: (height, width) in pixels.
        value: Value of the new pixels.
    """
    margins = find_margins((array.shape[0], array.shape[1]), size)
    if not any(map(any, margins)):
        return array
    width = (*margins, (0, 0)) if array.ndim == 3 else margins
    return np.pad(array, width, constant_values=value)


def find_margins(
    plane: tuple[int, int], size: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the padding ((above, below), (left, right)) of `pad_plane`."""
    missing = [max(0, target - current) for current, target in zip(plane, size, strict=True)]
    above, left = (number // 2 for number in missing)
    return (above, missing[0] - above), (left, missing[1] - left)

"""A file as a stack of slices, the way a network sees them: in training as in prediction.

The order is always the same: values over the whole volume, then the slice with its neighbors,
then the pixel size, then the padding. Whoever trains on slices and whoever predicts takes them
from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.intensity import IntensityConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.preprocessing.resize import Array, resize_image
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.volumes.intensity import scale_volume


class Slices(Protocol):
    """Slices as a network takes them, whatever they are read from."""

    @property
    def plane(self) -> tuple[int, int]:
        """(height, width) that slices come with, in pixels."""
        ...

    @property
    def depth(self) -> int:
        """Number of slices, D."""
        ...

    def view(self, index: int) -> Array:
        """Give a slice with its neighbors: (h, w, C * (2 k + 1))."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceStack:
    """The slices of a volume, or the one of a image.

    Attributes:
        array: (H, W, C, D), on the grid of the file.
        plane: (height, width) that slices are resampled to in pixels; (H, W) where they are not.
        neighbors: Slices on either side that come with each.
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
        """Give a slice with its neighbors at the size `plane`: (h, w, C * (2 k + 1)).

        Channels stand together slice by slice, from the lower neighbors to the upper; beyond an
        end the last slice is repeated. uint8 and uint16 stay, all else is float32.
        """
        reach = list_reach(index, self.neighbors, depth=self.depth)
        return compose_view([self.array[..., at] for at in reach], self.plane)


def open_stack(image: ImageFile, slices: SliceConfig, intensity: IntensityConfig) -> SliceStack:
    """Cut a file into slices, its values scaled over the whole of it where that is the kind.

    Args:
        image: A image, which is one slice, or a volume.
        slices: Axis, neighbors and pixel size.
        intensity: Of the kinds "fixed" and "per_image" nothing is done here.
    """
    array = image.array
    if intensity.is_of_volumes:
        array = scale_volume(array, intensity)
    if image.kind == "image":
        array = array[..., None]
    else:
        channels = array[..., None] if array.ndim == 3 else array
        # (X, Y, Z, C) to (H, W, C, D): the two other axes keep their order.
        array = np.moveaxis(channels, slices.axis, -1)
    height, width = array.shape[:2]
    plane = find_slice_plane((height, width), image.spacing, slices)
    return SliceStack(array=array, plane=plane, neighbors=slices.neighbors)


def list_reach(index: int, neighbors: int, *, depth: int) -> list[int]:
    """Give the numbers of the slices that are seen with one; beyond an end the last is repeated."""
    around = range(index - neighbors, index + neighbors + 1)
    return [min(max(at, 0), depth - 1) for at in around]


def compose_view(chosen: Sequence[Array], plane: tuple[int, int]) -> Array:
    """Put slices (H, W, C) behind each other as channels and bring them to the size `plane`."""
    image = np.ascontiguousarray(np.concatenate(chosen, axis=2))
    if image.dtype not in (np.uint8, np.uint16):
        image = image.astype(np.float32)
    return resize_image(image, plane)


def restore_axis(stacked: NDArray[Any], axis: int) -> NDArray[Any]:
    """Turn (..., H, W, D) back into (..., X, Y, Z)."""
    return np.moveaxis(stacked, -1, stacked.ndim - 3 + axis)


def find_plane(
    grid: tuple[int, int],
    spacing: tuple[float, float] | None,
    wanted: tuple[float, float] | None,
) -> tuple[int, int]:
    """Give the size of a slice once its pixels have another side; at least one pixel.

    Args:
        grid: (height, width) in pixels of the file.
        spacing: Pixel sides of the file in mm; None: it has none, and stays.
        wanted: Pixel sides to come to in mm; None: those of the file.
    """
    if spacing is None or wanted is None:
        return grid
    height, width = (
        max(1, round(side * own / to)) for side, own, to in zip(grid, spacing, wanted, strict=True)
    )
    return height, width


def find_slice_plane(
    grid: tuple[int, int], spacing: tuple[float, ...] | None, slices: SliceConfig
) -> tuple[int, int]:
    """Give the size that slices of a file come with, by the spacing of its three axes in mm."""
    if spacing is None:
        return grid
    height, width = (side for at, side in enumerate(spacing) if at != slices.axis)
    return find_plane(grid, (height, width), slices.spacing_mm)


def pad_plane(array: Array, size: tuple[int, int], *, value: Any) -> Array:
    """Put rows and columns around (h, w) or (h, w, C), evenly, until it has at least `size`.

    Args:
        array: The slice or its mask.
        size: (height, width) in pixels.
        value: What the new pixels hold.
    """
    margins = find_margins((array.shape[0], array.shape[1]), size)
    if not any(map(any, margins)):
        return array
    width = (*margins, (0, 0)) if array.ndim == 3 else margins
    return np.pad(array, width, constant_values=value)


def find_margins(
    plane: tuple[int, int], size: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Give ((above, below), (left, right)): what `pad_plane` puts around a plane."""
    missing = [max(0, wanted - present) for present, wanted in zip(plane, size, strict=True)]
    above, left = (number // 2 for number in missing)
    return (above, missing[0] - above), (left, missing[1] - left)

"""Cached copies of a volume and its mask: scaled and downsampled slices, one file each.

Values are scaled over the whole volume before it is sliced, so a cached slice has the same numbers
as in prediction. Training maps single slices from the file without decoding it again.
"""

from dataclasses import dataclass

import numpy as np

from segnetr.config.schema.intensity import IntensityConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.preprocessing.resize import Array, reduce_size, resize_image, resize_labels
from segnetr.data.readers.image_file import ImageFile, MaskFile
from segnetr.data.volumes.slice_stack import open_stack


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSettings:
    """Settings that the copies of a volume depend on, in addition to its files and their size.

    Attributes:
        axis: As in `SliceConfig`.
        spacing_mm: As in `SliceConfig`.
        intensity: How values are scaled over the volume. One of the kinds for volumes.
    """

    axis: int
    spacing_mm: tuple[float, float] | None
    intensity: IntensityConfig


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceCopies:
    """A volume as slices.

    Attributes:
        image: (D, h, w, C) uint16. 0..65535 represents 0..1.
        mask: (D, h, w) uint8 class indices.
        has_foreground: Whether each slice has foreground, computed on the original grid, where
            small structures are not lost.
    """

    image: Array
    mask: Array
    has_foreground: tuple[bool, ...]


def make_slice_copies(
    volume: ImageFile, mask: MaskFile, settings: VolumeSettings, *, side: int
) -> SliceCopies:
    """Scale, slice, resample and downsample a volume and its mask.

    Args:
        volume: The volume.
        mask: Class indices on the volume's grid.
        settings: Axis, pixel size and intensity scaling.
        side: Length of the shorter side of a slice in pixels. Smaller slices are not enlarged.
    """
    slices = SliceConfig(axis=settings.axis, spacing_mm=settings.spacing_mm)  # type: ignore[arg-type]
    stack = open_stack(volume, slices, settings.intensity)
    labels = np.moveaxis(mask.array, settings.axis, 0)
    size = reduce_size(stack.plane, side)
    images = [resize_image(stack.view(index), size) for index in range(stack.depth)]
    masks = [resize_labels(np.ascontiguousarray(plane), size) for plane in labels]
    return SliceCopies(
        image=np.stack(images),
        mask=np.stack(masks),
        has_foreground=tuple(bool(plane.any()) for plane in labels),
    )

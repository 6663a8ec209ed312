"""Slices of a volume that stays on the disk, read a few planes or a block of slices at a time.

The file stores planes along Z. Slices along Z are read one after the other. Slices along another
axis cross all planes, so a block of them is collected in one pass through the file.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.intensity import IntensityConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.preprocessing.resize import Array
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.data.volumes.intensity import Range, find_stream_ranges, scale_values
from segnetr.data.volumes.slice_stack import (
    Slices,
    find_slice_plane,
    list_neighbors,
    stack_slices,
)


class StreamedStack:
    """Slices that are read on access. Sequential access is the fastest.

    Args:
        volume: The file.
        slices: Axis, neighbors and pixel size.
        ranges: For each channel the values that become 0 and 65535. None: values are not scaled.
        block_bytes: Memory for a block of slices across the stored planes. One slice with its
            neighbors is always held.
    """

    def __init__(
        self,
        volume: VolumeFile,
        *,
        slices: SliceConfig,
        ranges: tuple[Range, ...] | None,
        block_bytes: int,
    ) -> None:
        self._volume = volume
        self._axis = slices.axis
        self._neighbors = slices.neighbors
        self._ranges = ranges
        height, width = (side for axis, side in enumerate(volume.grid) if axis != slices.axis)
        self.plane = find_slice_plane((height, width), volume.spacing, slices)
        self.depth = volume.grid[slices.axis]
        self._held: OrderedDict[int, Array] = OrderedDict()
        self._planes: Iterator[NDArray[Any]] | None = None
        self._next = 0
        values = height * width * volume.channels
        item = volume.dtype.itemsize if ranges is None else 2
        self._block = max(slices.num_slices, block_bytes // (values * item))

    def view(self, index: int) -> Array:
        """Return a slice with its neighbors at the size `plane`, as `SliceStack` does.

        Raises:
            ReadError: If the file can no longer be read, or changed after it was opened.
        """
        indices = list_neighbors(index, self._neighbors, depth=self.depth)
        if self._axis == 2:
            self._read_to(indices)
        elif any(i not in self._held for i in indices):
            self._read_block(min(indices))
        return stack_slices([self._held[i] for i in indices], self.plane)

    def _read_to(self, indices: list[int]) -> None:
        """Read planes up to the last index, and drop those before the first."""
        first, last = min(indices), max(indices)
        if self._planes is None or (first < self._next and first not in self._held):
            self._held.clear()
            self._planes, self._next = self._volume.read_planes(first), first
        while self._next <= last:
            self._held[self._next] = self._scale(next(self._planes))
            self._next += 1
        while next(iter(self._held)) < first:
            self._held.popitem(last=False)

    def _read_block(self, first: int) -> None:
        """Read a block of slices, which requires every plane of the file."""
        stop = min(first + self._block, self.depth)
        self._held.clear()
        block: Array | None = None
        for index, plane in enumerate(self._volume.read_planes()):
            # (n, other axis, C) of the slices in the block.
            values = self._scale(np.moveaxis(plane, self._axis, 0)[first:stop])
            if block is None:
                shape = (stop - first, values.shape[1], self._volume.grid[2], values.shape[2])
                block = np.empty(shape, dtype=values.dtype)
            block[:, :, index] = values
        if block is not None:
            self._held.update(zip(range(first, stop), block, strict=True))

    def _scale(self, values: NDArray[Any]) -> Array:
        """Scale (..., C) with the ranges of the whole volume."""
        if self._ranges is None:
            return values
        scaled = [
            scale_values(values[..., channel], limits)
            for channel, limits in enumerate(self._ranges)
        ]
        return np.stack(scaled, axis=-1)


def open_streamed_stack(
    volume: VolumeFile, slices: SliceConfig, intensity: IntensityConfig, *, block_bytes: int
) -> Slices:
    """Return the slices of a volume that stays on the disk. See `open_stack`.

    Raises:
        ReadError: If the file can no longer be read.
    """
    ranges = find_stream_ranges(volume, intensity) if intensity.is_of_volumes else None
    return StreamedStack(volume, slices=slices, ranges=ranges, block_bytes=block_bytes)


def count_block_bytes(volume: VolumeFile, slices: SliceConfig) -> int:
    """Return the minimum memory for a volume in bytes: a slice and its neighbors."""
    values = math.prod(volume.grid) // volume.grid[slices.axis] * volume.channels
    return values * max(2, volume.dtype.itemsize) * (slices.num_slices + 1)

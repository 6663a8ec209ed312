"""The slices of a volume that stays on the disk: a few planes, or a block of slices, at a time.

The file stores planes along Z. Slices along Z are read one after the other; those along another
axis lie across all planes, so a block of them is collected in one passage through the file.
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
from segnetr.data.volumes.intensity import scale_values
from segnetr.data.volumes.intensity_limits import find_stream_limits
from segnetr.data.volumes.slice_stack import Slices, compose_view, find_slice_plane, list_reach

_Limits = tuple[tuple[float, float], ...] | None


class StreamedStack:
    """Slices that are read when they are looked at, best in their order.

    Args:
        volume: The file.
        slices: Axis, neighbors and pixel size.
        limits: For each channel the values that become 0 and 65535; None: values stay.
        block_bytes: What a block of slices across the stored planes may take; one slice with its
            neighbors is always held.
    """

    def __init__(
        self, volume: VolumeFile, *, slices: SliceConfig, limits: _Limits, block_bytes: int
    ) -> None:
        self._volume = volume
        self._axis = slices.axis
        self._neighbors = slices.neighbors
        self._limits = limits
        height, width = (side for at, side in enumerate(volume.grid) if at != slices.axis)
        self.plane = find_slice_plane((height, width), volume.spacing, slices)
        self.depth = volume.grid[slices.axis]
        self._held: OrderedDict[int, Array] = OrderedDict()
        self._planes: Iterator[NDArray[Any]] | None = None
        self._next = 0
        values = height * width * volume.channels
        item = volume.dtype.itemsize if limits is None else 2
        self._block = max(slices.num_slices, block_bytes // (values * item))

    def view(self, index: int) -> Array:
        """Give a slice with its neighbors at the size `plane`, as `SliceStack` does.

        Raises:
            ReadError: If the file cannot be read any more, or changed since it was opened.
        """
        reach = list_reach(index, self._neighbors, depth=self.depth)
        if self._axis == 2:
            self._read_on(reach)
        elif any(at not in self._held for at in reach):
            self._collect(min(reach))
        return compose_view([self._held[at] for at in reach], self.plane)

    def _read_on(self, reach: list[int]) -> None:
        """Read planes up to the last one of `reach`, and forget those before its first."""
        first, last = min(reach), max(reach)
        if self._planes is None or (first < self._next and first not in self._held):
            self._held.clear()
            self._planes, self._next = self._volume.read_planes(first), first
        while self._next <= last:
            self._held[self._next] = self._scale(next(self._planes))
            self._next += 1
        while next(iter(self._held)) < first:
            self._held.popitem(last=False)

    def _collect(self, first: int) -> None:
        """Take a block of slices out of every plane of the file."""
        stop = min(first + self._block, self.depth)
        self._held.clear()
        block: Array | None = None
        for at, plane in enumerate(self._volume.read_planes()):
            # (n, other axis, C) of the slices wanted.
            part = self._scale(np.moveaxis(plane, self._axis, 0)[first:stop])
            if block is None:
                shape = (stop - first, part.shape[1], self._volume.grid[2], part.shape[2])
                block = np.empty(shape, dtype=part.dtype)
            block[:, :, at] = part
        if block is not None:
            self._held.update(zip(range(first, stop), block, strict=True))

    def _scale(self, values: NDArray[Any]) -> Array:
        """Bring (..., C) to the scale of the whole volume."""
        if self._limits is None:
            return values
        scaled = [
            scale_values(values[..., channel], limits)
            for channel, limits in enumerate(self._limits)
        ]
        return np.stack(scaled, axis=-1)


def open_streamed_stack(
    volume: VolumeFile, slices: SliceConfig, intensity: IntensityConfig, *, block_bytes: int
) -> Slices:
    """Cut a volume into slices while it stays on the disk; see `open_stack`.

    Raises:
        ReadError: If the file cannot be read any more.
    """
    limits = find_stream_limits(volume, intensity) if intensity.is_of_volumes else None
    return StreamedStack(volume, slices=slices, limits=limits, block_bytes=block_bytes)


def count_block_bytes(volume: VolumeFile, slices: SliceConfig) -> int:
    """Give the least bytes that have to be held of a volume: a slice and its neighbors."""
    values = math.prod(volume.grid) // volume.grid[slices.axis] * volume.channels
    return values * max(2, volume.dtype.itemsize) * (slices.num_slices + 1)

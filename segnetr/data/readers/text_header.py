"""Headers made of lines, as NRRD and MetaImage have them, and the voxels that belong to them.

What both formats share: fields are kept as the text they were written in, so that a mask can carry
the very same letters; the voxels follow in the file, or lie in another one, of which only a plain
name in the same folder is taken (a path could lead anywhere on the disk).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.gzip_stream import Packing, read_voxel_bytes
from segnetr.data.readers.image_file import check_extent
from segnetr.errors import ReadError

MOST_HEADER_BYTES = 2**20
_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class VoxelLayout:
    """Where the voxels of a header lie, and how.

    Attributes:
        sides: Length of each axis of the file, fastest first.
        dtype: Of one value, with its byte order.
        axes: Which axes are X, Y and Z.
        channel_axis: The axis of several values for each voxel, or None.
        packing: How the bytes are packed.
        data_name: The other file that holds them; None: they follow the header.
        data_start: Byte in this file at which they begin, where they follow.
    """

    sides: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: tuple[int, int, int]
    channel_axis: int | None
    packing: Packing
    data_name: str | None
    data_start: int


def read_voxels(
    path: Path, stream: BinaryIO, layout: VoxelLayout, *, max_pixels: int
) -> NDArray[Any]:
    """Read the voxels of a header, after its claims were judged.

    Args:
        path: The file with the header, for messages.
        stream: That file, open.
        layout: Where the voxels lie.
        max_pixels: Refuse more values than this before memory is taken for them.

    Returns:
        (X, Y, Z), or (X, Y, Z, C) where there is an axis of channels; native byte order.

    Raises:
        ReadError: If there are too many, too few or more than the header says.
    """
    check_extent(path, layout.sides, max_pixels=max_pixels)
    needed = math.prod(layout.sides) * layout.dtype.itemsize
    with _open_data(path, stream, layout) as data:
        content = read_voxel_bytes(path, data, needed, packing=layout.packing)
    stored = np.frombuffer(content, dtype=layout.dtype).reshape(layout.sides, order="F")
    kept = layout.axes if layout.channel_axis is None else (*layout.axes, layout.channel_axis)
    left_out = tuple(axis for axis in range(stored.ndim) if axis not in kept)
    ordered = stored.transpose(*kept, *left_out).reshape([layout.sides[axis] for axis in kept])
    return ordered.astype(layout.dtype.newbyteorder("="), copy=False)


def choose_axes(
    path: Path, sides: tuple[int, ...], spatial: list[int], *, channels: int
) -> tuple[tuple[int, int, int], int | None, tuple[str, ...]]:
    """Tell X, Y and Z from channels and from axes of length 1.

    Args:
        path: The file, for messages.
        sides: Length of each axis, fastest first.
        spatial: Axes that span the volume.
        channels: Values wanted for each voxel.

    Returns:
        The three axes, the axis of channels or None, and notes.

    Raises:
        ReadError: If there are not three spatial axes, or others than the channels wanted.
    """
    if len(spatial) != 3:
        raise ReadError(
            path, f"it has {len(spatial)} axes in space {sides}; volumes of three axes are read"
        )
    others = [axis for axis in range(len(sides)) if axis not in spatial]
    if channels > 1:
        if [sides[axis] for axis in others] == [channels]:
            return (spatial[0], spatial[1], spatial[2]), others[0], ()
        raise ReadError(
            path,
            f"it has {len(sides)} axes {sides}; three axes and another of {channels} channels"
            " are read",
        )
    if any(sides[axis] != 1 for axis in others):
        raise ReadError(path, f"it has {len(sides)} axes {sides}; volumes of three axes are read")
    notes = (f"{len(sides)} axes are stored; those of length 1 are left out",) if others else ()
    return (spatial[0], spatial[1], spatial[2]), None, notes


def parse_integers(path: Path, name: str, text: str) -> tuple[int, ...]:
    """Read whole numbers of a field.

    Raises:
        ReadError: If the text is none.
    """
    try:
        # A number of very many digits is a ValueError as well.
        return tuple(int(word) for word in text.split())
    except ValueError as error:
        raise ReadError(path, f"damaged header: its {name} is '{shorten(text)}'") from error


def parse_numbers(path: Path, name: str, text: str) -> tuple[float, ...]:
    """Read real numbers of a field.

    Raises:
        ReadError: If the text is none.
    """
    try:
        return tuple(float(word) for word in text.split())
    except ValueError as error:
        raise ReadError(path, f"damaged header: its {name} is '{shorten(text)}'") from error


def require_field(path: Path, fields: Mapping[str, str], name: str) -> str:
    """Give a field that must be there.

    Raises:
        ReadError: If it is missing.
    """
    if name not in fields:
        raise ReadError(path, f"damaged header: its {name} is missing")
    return fields[name]


def shorten(text: str) -> str:
    """Make text of a header fit into one line for people."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}..."


@contextmanager
def _open_data(path: Path, stream: BinaryIO, layout: VoxelLayout) -> Iterator[BinaryIO]:
    if layout.data_name is None:
        stream.seek(layout.data_start)
        yield stream
        return
    name = layout.data_name
    is_plain = name not in ("", ".", "..") and "\0" not in name and all(
        kind(name).name == name for kind in (PurePosixPath, PureWindowsPath)
    )  # fmt: skip
    if not is_plain:
        raise ReadError(
            path,
            f"its voxels are said to be in '{shorten(name)}'; one file of a plain name beside it"
            " is read",
        )
    if not (path.parent / name).is_file():
        raise ReadError(path, f"its voxels are said to be in {name}, which is not beside it")
    with (path.parent / name).open("rb") as data:
        yield data

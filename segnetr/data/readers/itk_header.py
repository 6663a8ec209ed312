"""Header text shared by NRRD and MetaImage, checked strictly before SimpleITK reads the voxels.

SimpleITK cannot check a file: it fills truncated files with zeros, accepts trailing bytes and NaN
geometry, and crashes on some damaged headers. So our own code parses the header text, rejects what
is damaged, and computes how many bytes the file must hold. The text of every field is preserved so
that a mask can carry the same geometry unchanged.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.gzip_stream import Packing
from segnetr.data.readers.image_file import TextHeader
from segnetr.errors import ReadError

_MAX_HEADER_BYTES = 2**20
_MAX_SHOWN = 60

ITEM_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}  # fmt: skip
"""Bytes per value of the types that are read."""

Geometry = tuple[NDArray[np.float64] | None, tuple[float, ...] | None, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItkHeader:
    """A checked header.

    Attributes:
        source: The text of the header.
        sides: Length of each axis in the file, fastest first.
        axes: The axes that are X, Y and Z.
        channel_axis: The axis that holds the channels, or None.
        element_type: The type of a value, as MetaImage names it.
        is_big_endian: Byte order of the values.
        packing: How the voxels are compressed.
        data_name: Name of the data file, or None if the voxels follow the header.
        data_start: Position of the first voxel byte if the voxels follow the header.
        affine: As in `ImageFile`.
        spacing: As in `ImageFile`.
        warnings: As in `ImageFile`.
    """

    source: TextHeader
    sides: tuple[int, ...]
    axes: tuple[int, int, int]
    channel_axis: int | None
    element_type: str
    is_big_endian: bool
    packing: Packing
    data_name: str | None
    data_start: int
    affine: NDArray[np.float64] | None
    spacing: tuple[float, ...] | None
    warnings: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of all voxels, uncompressed."""
        return math.prod(self.sides) * ITEM_BYTES[self.element_type]


@dataclass(frozen=True, slots=True)
class Fields:
    """Fields of a header by canonical name, with strict conversions.

    Attributes:
        path: The file, for messages.
        text: Text by name.
    """

    path: Path
    text: Mapping[str, str]

    def error(self, reason: str) -> ReadError:
        """Return an error that names the file."""
        return ReadError(self.path, reason)

    def shown(self, name: str) -> str:
        """Return the text of a field for a message."""
        return shorten_header(self.text.get(name, ""))

    def require(self, name: str) -> str:
        """Return the text of a field that must exist."""
        if name not in self.text:
            raise self.error(f"damaged header: its {name} is missing")
        return self.text[name]

    def numbers(
        self, name: str, kind: Callable[[str], float] = float, text: str | None = None
    ) -> tuple[float, ...]:
        """Return the numbers of a field."""
        text = self.require(name) if text is None else text
        try:
            return tuple(kind(word) for word in text.split())
        except ValueError as error:  # also a number with very many digits
            raise self.error(f"damaged header: its {name} is '{shorten_header(text)}'") from error

    def vector(self, name: str, length: int, text: str | None = None) -> tuple[float, ...]:
        """Return the numbers of a field with a fixed length."""
        found = self.numbers(name, text=text)
        if len(found) != length:
            raise self.error(f"its {name} has {len(found)} numbers where {length} are expected")
        return found

    def sides(self, axes_name: str, name: str, most: int) -> tuple[int, ...]:
        """Return the lengths of all axes."""
        axes = self.numbers(axes_name, int)
        found = tuple(int(side) for side in self.numbers(name, int))
        if list(axes) != [len(found)] or not 1 <= len(found) <= most or min(found) < 1:
            raise self.error(
                f"its header claims {self.shown(axes_name)} axes of {self.shown(name)} voxels;"
                " it is damaged"
            )
        return found

    def flag(self, name: str, default: str = "False") -> bool:
        """Return a field that is true or false."""
        text = self.text.get(name, default)
        if text.lower() not in ("true", "false", "1", "0", "t", "f"):
            raise self.error(f"damaged header: its {name} is '{shorten_header(text)}'")
        return text.lower() in ("true", "1", "t")

    def unsupported_type(self, name: str) -> ReadError:
        """Return the error for a type that is not read."""
        return self.error(
            f"its voxels are '{self.shown(name)}'; integers and real numbers are supported"
        )

    def require_zero(self, *names: str) -> None:
        """Reject values other than 0."""
        for name in names:
            if self.text.get(name, "0") != "0":
                raise self.error(f"its {name} is {self.shown(name)}; only 0 is supported")


def shorten_header(text: str) -> str:
    """Return header text as one printable line of limited length."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in text)
    return plain if len(plain) <= _MAX_SHOWN else f"{plain[:_MAX_SHOWN]}..."


def read_head(path: Path, stream: BinaryIO) -> bytes:
    """Return the first bytes of a file, which hold its header."""
    head = stream.read(_MAX_HEADER_BYTES)
    if not head:
        raise ReadError(path, "the file is empty")
    return head


def decode_header(path: Path, block: bytes) -> str:
    """Return header bytes as text."""
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReadError(path, "damaged header: it is no text") from error


def truncated_header(path: Path, head: bytes) -> ReadError:
    """Return the error for a header without an end."""
    return ReadError(path, f"cut off inside its header: {len(head)} bytes are there")


def choose_axes(
    path: Path, sides: tuple[int, ...], spatial: list[int], *, channels: int
) -> tuple[tuple[int, int, int], int | None, tuple[str, ...]]:
    """Return the axes X, Y and Z, the channel axis or None, and warnings."""
    if len(spatial) != 3:
        raise ReadError(
            path, f"it has {len(spatial)} axes in space {sides}; volumes of three axes are read"
        )
    axes = (spatial[0], spatial[1], spatial[2])
    others = [axis for axis in range(len(sides)) if axis not in spatial]
    if channels > 1:
        if [sides[axis] for axis in others] == [channels]:
            return axes, others[0], ()
        raise ReadError(
            path,
            f"it has {len(sides)} axes {sides}; three axes and another of {channels} channels"
            " are read",
        )
    if any(sides[axis] != 1 for axis in others):
        raise ReadError(path, f"it has {len(sides)} axes {sides}; volumes of three axes are read")
    return axes, None, (f"{len(others)} axes of length 1 are ignored",) if others else ()

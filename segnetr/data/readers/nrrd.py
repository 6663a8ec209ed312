"""NRRD volumes, their header judged before memory is taken and kept letter for letter.

Read: `.nrrd` with its voxels behind the header, and `.nhdr` with one data file beside it; raw or
gzip; integers and real numbers; three axes in space, and one more for channels or of length 1.

The affine is turned into the application's convention (right, anterior, superior) by changing
signs, which loses no bit. A file without `space directions` has a spacing at most, and no place in
the world: its affine is None. An unnamed space counts as left-posterior-superior, as for ITK.

Source:
    Teem, "Definition of NRRD File Format", teem.sourceforge.net/nrrd/format.html.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.gzip_stream import Packing
from segnetr.data.readers.image_file import ImageFile, check_finite, describe_os_error
from segnetr.data.readers.source_header import TextHeader
from segnetr.data.readers.text_header import (
    MOST_HEADER_BYTES,
    VoxelLayout,
    choose_axes,
    parse_integers,
    parse_numbers,
    read_voxels,
    require_field,
    shorten,
)
from segnetr.data.readers.voxel_grid import check_affine, check_spacing
from segnetr.errors import ReadError

DIRECTION = re.compile(r"none|\([^()]*\)")
"""One entry of `space directions`."""

_MAGIC = re.compile(rb"NRRD000[1-5]\r?\n")
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64,"
    " int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_TYPE_OF_NAME = {name.strip(): code for code, names in _TYPES.items() for name in names.split(",")}
_PACKINGS: Mapping[str, Packing] = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}
_SIGNS = {
    "right-anterior-superior": (1.0, 1.0), "ras": (1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0), "las": (-1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0), "lps": (-1.0, -1.0),
}  # fmt: skip
_UNITS_MM = {"": 1.0, "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1000.0,
             "um": 1e-3, "µm": 1e-3, "micrometer": 1e-3, "micron": 1e-3}  # fmt: skip
_SAME_NAME = {"centers": "centerings", "datafile": "data file", "lineskip": "line skip",
              "byteskip": "byte skip"}  # fmt: skip
_SPACE_KINDS = {"domain", "space", "???", "none"}


def read_nrrd(path: Path, *, max_pixels: int, channels: int = 1) -> ImageFile:
    """Read an NRRD volume.

    Args:
        path: A `.nrrd` or `.nhdr` file.
        max_pixels: As in `segnetr.data.readers.nifti.read_volume`.
        channels: As there; the axis of channels may stand anywhere.

    Returns:
        An array (X, Y, Z) or (X, Y, Z, C), with the header as stored.

    Raises:
        ReadError: As `segnetr.data.readers.nifti.read_volume`.
    """
    try:
        with path.open("rb") as stream:
            return _read_stream(path, stream, max_pixels=max_pixels, channels=channels)
    except OSError as error:
        raise ReadError(path, describe_os_error(error)) from error
    except MemoryError as error:
        raise ReadError(path, "there is not enough memory for it") from error


def _read_stream(path: Path, stream: BinaryIO, *, max_pixels: int, channels: int) -> ImageFile:
    lines, data_start = _read_lines(path, stream)
    fields = _index_fields(path, lines)
    sides = _find_sides(path, fields)
    directions = _find_directions(path, fields, len(sides))
    spatial = _find_spatial(fields, directions, sides)
    axes, channel_axis, notes = choose_axes(path, sides, spatial, channels=channels)
    affine, spacing, more = _find_geometry(path, fields, directions, axes)
    packing, data_name = _find_data(path, fields)
    layout = VoxelLayout(
        sides=sides,
        dtype=_find_dtype(path, fields),
        axes=axes,
        channel_axis=channel_axis,
        packing=packing,
        data_name=data_name,
        data_start=data_start,
    )
    array = read_voxels(path, stream, layout, max_pixels=max_pixels)
    check_finite(path, array)
    header = TextHeader(form="nrrd", fields=lines, axes=axes, is_packed=packing != "raw")
    return ImageFile(
        path=path,
        array=array,
        kind="volume",
        affine=affine,
        spacing=spacing,
        stored=header,
        notes=notes + more,
    )


def _read_lines(path: Path, stream: BinaryIO) -> tuple[tuple[tuple[str, str, str], ...], int]:
    """Cut the header into name, separator and text, and tell where it ends."""
    head = stream.read(MOST_HEADER_BYTES)
    if not head:
        raise ReadError(path, "the file is empty")
    magic = _MAGIC.match(head)
    if magic is None:
        raise ReadError(path, "it is no NRRD file: its first line is not NRRD0001 to NRRD0005")
    end = _HEADER_END.search(head, magic.end() - 1)
    if end is None and not path.name.lower().endswith(".nhdr"):
        raise ReadError(path, f"cut off inside its header: {len(head)} bytes are there")
    block = head[magic.end() : end.start() if end else len(head)]
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReadError(path, "damaged header: it is no text") from error
    lines = []
    for line in text.replace("\r", "").split("\n"):
        if not line or line.startswith("#"):
            continue
        found = re.match(r"([^:]+)(:=|: ?)(.*)", line)
        if found is None:
            raise ReadError(path, f"damaged header: the line '{shorten(line)}' is no field")
        lines.append((found[1], found[2], found[3].strip()))
    return tuple(lines), end.end() if end else len(head)


def _index_fields(path: Path, lines: tuple[tuple[str, str, str], ...]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, separator, text in lines:
        if separator == ":=":
            continue
        plain = _SAME_NAME.get(name.strip().lower(), name.strip().lower())
        if plain in fields:
            raise ReadError(path, f"damaged header: its {shorten(plain)} stands there twice")
        fields[plain] = text
    return fields


def _find_sides(path: Path, fields: Mapping[str, str]) -> tuple[int, ...]:
    axes = parse_integers(path, "dimension", require_field(path, fields, "dimension"))
    sides = parse_integers(path, "sizes", require_field(path, fields, "sizes"))
    if axes != (len(sides),) or not 1 <= len(sides) <= 16 or min(sides) < 1:
        raise ReadError(
            path,
            f"its header claims {shorten(fields['dimension'])} axes of {shorten(fields['sizes'])}"
            " voxels; it is damaged",
        )
    return sides


def _find_directions(
    path: Path, fields: Mapping[str, str], axes: int
) -> list[tuple[float, ...] | None] | None:
    """Give the vector of each axis, None for one outside space; None where the field is missing."""
    if "space directions" not in fields:
        return None
    text = fields["space directions"]
    words = DIRECTION.findall(text)
    if len(words) != axes or DIRECTION.sub("", text).strip():
        raise ReadError(path, f"damaged header: its space directions are '{shorten(text)}'")
    return [None if word == "none" else _parse_vector(path, word) for word in words]


def _parse_vector(path: Path, word: str) -> tuple[float, ...]:
    numbers = parse_numbers(path, "space directions or origin", word[1:-1].replace(",", " "))
    if len(numbers) != 3:
        raise ReadError(path, f"its vector {shorten(word)} is not one of three numbers")
    return numbers


def _find_spatial(
    fields: Mapping[str, str],
    directions: list[tuple[float, ...] | None] | None,
    sides: tuple[int, ...],
) -> list[int]:
    if directions is not None:
        return [axis for axis, vector in enumerate(directions) if vector is not None]
    kinds = fields.get("kinds", "").lower().split()
    if len(kinds) != len(sides):
        return list(range(len(sides)))
    return [axis for axis, kind in enumerate(kinds) if kind in _SPACE_KINDS]


def _find_geometry(
    path: Path,
    fields: Mapping[str, str],
    directions: list[tuple[float, ...] | None] | None,
    axes: tuple[int, int, int],
) -> tuple[NDArray[np.float64] | None, tuple[float, ...] | None, tuple[str, ...]]:
    """Give affine (right, anterior, superior), spacing in mm, and notes."""
    if directions is None:
        return None, _find_spacing(path, fields, axes), ("it says nothing of its orientation",)
    space = fields.get("space", "").lower()
    signs = _SIGNS.get(space)
    notes: tuple[str, ...] = (
        () if signs else (f"its space '{shorten(space)}' is taken as left-posterior-superior",)
    )
    across, along = signs or (-1.0, -1.0)
    unit = _find_unit(path, fields)
    if unit != 1.0:
        notes += (f"lengths are stored in units of {unit:g} mm",)
    affine = np.eye(4)
    for column, axis in enumerate(axes):
        affine[:3, column] = directions[axis]
    origin = fields.get("space origin")
    if origin is not None:
        affine[:3, 3] = _parse_vector(path, origin)
    affine[0, :3] *= across
    affine[1, :3] *= along
    affine[:2, 3] *= (across, along)
    affine += 0.0  # no minus zero
    return affine, check_affine(path, affine, unit_mm=unit), notes


def _find_unit(path: Path, fields: Mapping[str, str]) -> float:
    names = set(re.findall(r'"([^"]*)"', fields.get("space units", '""')))
    units = {_UNITS_MM.get(name.strip().lower()) for name in names}
    unit = units.pop() if len(units) == 1 else None
    if unit is None:
        shown = shorten(fields.get("space units", ""))
        raise ReadError(path, f"its space units are {shown}; one known unit for all axes is read")
    return unit


def _find_spacing(
    path: Path, fields: Mapping[str, str], axes: tuple[int, int, int]
) -> tuple[float, ...] | None:
    if "spacings" not in fields:
        return None
    numbers = parse_numbers(path, "spacings", fields["spacings"])
    if len(numbers) <= max(axes):
        raise ReadError(path, f"damaged header: its spacings are '{shorten(fields['spacings'])}'")
    sides = tuple(abs(numbers[axis]) for axis in axes)
    if all(math.isnan(side) for side in sides):
        return None
    check_spacing(path, np.array(sides))
    return sides


def _find_dtype(path: Path, fields: Mapping[str, str]) -> "np.dtype[np.generic]":
    name = " ".join(require_field(path, fields, "type").lower().split())
    code = _TYPE_OF_NAME.get(name)
    if code is None:
        raise ReadError(
            path, f"its voxels are '{shorten(name)}'; integers and real numbers are read"
        )
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "").lower())
    if order is None and code[1] != "1":
        raise ReadError(path, "its header does not say in which order bytes stand (endian)")
    return np.dtype((order or "=") + code)


def _find_data(path: Path, fields: Mapping[str, str]) -> tuple[Packing, str | None]:
    encoding = require_field(path, fields, "encoding").lower()
    if encoding not in _PACKINGS:
        raise ReadError(
            path, f"its voxels are encoded as '{shorten(encoding)}'; raw and gzip are read"
        )
    for name in ("line skip", "byte skip"):
        if fields.get(name, "0") != "0":
            raise ReadError(path, f"its {name} is {shorten(fields[name])}; only 0 is read")
    data_name = fields.get("data file")
    if data_name is None and path.name.lower().endswith(".nhdr"):
        raise ReadError(path, "its header names no data file")
    return _PACKINGS[encoding], data_name

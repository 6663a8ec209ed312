"""NRRD headers, parsed and checked as text.

Read: `.nrrd` with the voxels after the header, and `.nhdr` with one data file in the same folder;
raw or gzip; integers and real numbers; three spatial axes, plus one for channels or of length 1.

Affines use right-anterior-superior coordinates; the conversion changes signs only, which is exact.
A file without `space directions` has no affine, and at most a spacing. An unnamed space counts as
left-posterior-superior, as in ITK.

Source:
    Teem, "Definition of NRRD File Format", teem.sourceforge.net/nrrd/format.html.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from segnetr.data.readers.gzip_stream import Packing
from segnetr.data.readers.image_file import TextHeader, check_affine, check_spacing
from segnetr.data.readers.itk_header import (
    ITEM_BYTES,
    Fields,
    Geometry,
    ItkHeader,
    choose_axes,
    decode_header,
    read_head,
    shorten_header,
    truncated_header,
)
from segnetr.errors import ReadError

DIRECTION = re.compile(r"none|\([^()]*\)")
"""One entry of `space directions`."""

_MAGIC = re.compile(rb"NRRD000[1-5]\r?\n")
_END = re.compile(rb"\r?\n\r?\n")
_TYPES = {
    "MET_CHAR": "signed char, int8, int8_t",
    "MET_UCHAR": "uchar, unsigned char, uint8, uint8_t",
    "MET_SHORT": "short, short int, signed short, signed short int, int16, int16_t",
    "MET_USHORT": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "MET_INT": "int, signed int, int32, int32_t",
    "MET_UINT": "uint, unsigned int, uint32, uint32_t",
    "MET_LONG_LONG": "longlong, long long, long long int, signed long long, signed long long int,"
    " int64, int64_t",
    "MET_ULONG_LONG": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "MET_FLOAT": "float",
    "MET_DOUBLE": "double",
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
_SYNONYMS = {"centers": "centerings", "datafile": "data file", "lineskip": "line skip",
                  "byteskip": "byte skip"}  # fmt: skip
_SPATIAL_KINDS = {"domain", "space", "???", "none"}


def read_nrrd_header(path: Path, stream: BinaryIO, *, channels: int) -> ItkHeader:
    """Read and check an NRRD header.

    Args:
        path: A `.nrrd` or `.nhdr` file.
        stream: That file, open at its start.
        channels: Expected values per voxel. The channel axis may be at any position.

    Raises:
        ReadError: If the header is damaged, or the volume or its encoding is not supported.
    """
    is_detached = path.name.lower().endswith(".nhdr")
    head = read_head(path, stream)
    magic = _MAGIC.match(head)
    if magic is None:
        raise ReadError(path, "it is no NRRD file: its first line is not NRRD0001 to NRRD0005")
    end = _END.search(head, magic.end() - 1)
    if end is None and not is_detached:
        raise truncated_header(path, head)
    block = decode_header(path, head[magic.end() : end.start() if end else len(head)])
    lines = []
    for line in block.replace("\r", "").split("\n"):
        if line and not line.startswith("#"):
            found = re.match(r"([^:]+)(:=|: ?)(.*)", line)
            if found is None:
                raise ReadError(path, f"damaged header: '{shorten_header(line)}' is no field")
            lines.append((found[1], found[2], found[3].strip()))
    fields = Fields(path, _index_fields(path, lines))
    sides = fields.sides("dimension", "sizes", 16)
    directions = _find_directions(fields, len(sides))
    spatial = _find_spatial(fields, directions, sides)
    axes, channel_axis, warnings = choose_axes(path, sides, spatial, channels=channels)
    affine, spacing, more = _find_geometry(fields, directions, axes)
    packing = _find_packing(fields)
    data_name = fields.text.get("data file")
    if data_name is None and is_detached:
        raise fields.error("its header names no data file")
    return ItkHeader(
        source=TextHeader(form="nrrd", fields=tuple(lines), axes=axes, is_packed=packing != "raw"),
        sides=sides,
        axes=axes,
        channel_axis=channel_axis,
        element_type=_find_type(fields),
        is_big_endian=fields.text.get("endian", "").lower() == "big",
        packing=packing,
        data_name=data_name,
        data_start=end.end() if end else len(head),
        affine=affine,
        spacing=spacing,
        warnings=warnings + more,
    )


def _index_fields(path: Path, lines: list[tuple[str, str, str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, separator, text in lines:
        if separator == ":=":
            continue
        plain = _SYNONYMS.get(name.strip().lower(), name.strip().lower())
        if plain in fields:
            raise ReadError(path, f"damaged header: its {shorten_header(plain)} is defined twice")
        fields[plain] = text
    return fields


def _find_directions(fields: Fields, axes: int) -> list[tuple[float, ...] | None] | None:
    """Return the vector of each axis, None for a non-spatial axis; None if the field is missing."""
    if "space directions" not in fields.text:
        return None
    text = fields.text["space directions"]
    words = DIRECTION.findall(text)
    if len(words) != axes or DIRECTION.sub("", text).strip():
        raise fields.error(f"damaged header: its space directions are '{shorten_header(text)}'")
    return [None if word == "none" else _parse_vector(fields, word) for word in words]


def _parse_vector(fields: Fields, word: str) -> tuple[float, ...]:
    return fields.vector("space directions or origin", 3, word.strip("() ").replace(",", " "))


def _find_spatial(
    fields: Fields,
    directions: list[tuple[float, ...] | None] | None,
    sides: tuple[int, ...],
) -> list[int]:
    if directions is not None:
        return [axis for axis, vector in enumerate(directions) if vector is not None]
    kinds = fields.text.get("kinds", "").lower().split()
    if len(kinds) != len(sides):
        return list(range(len(sides)))
    return [axis for axis, kind in enumerate(kinds) if kind in _SPATIAL_KINDS]


def _find_geometry(
    fields: Fields,
    directions: list[tuple[float, ...] | None] | None,
    axes: tuple[int, int, int],
) -> Geometry:
    """Return affine, spacing in mm, and warnings."""
    if directions is None:
        return None, _find_spacing(fields, axes), ("the header defines no orientation",)
    signs = _SIGNS.get(fields.text.get("space", "").lower(), (-1.0, -1.0))
    warnings: tuple[str, ...] = ()
    if fields.text.get("space", "").lower() not in _SIGNS:
        warnings += (f"its space '{fields.shown('space')}' is read as left-posterior-superior",)
    unit = _find_unit(fields)
    if unit != 1.0:
        warnings += (f"lengths are stored in units of {unit:g} mm",)
    affine = np.eye(4)
    for column, axis in enumerate(axes):
        affine[:3, column] = directions[axis]
    if "space origin" in fields.text:
        affine[:3, 3] = _parse_vector(fields, fields.text["space origin"])
    affine[:2] *= np.array(signs)[:, np.newaxis]
    affine += 0.0  # no minus zero
    return affine, check_affine(fields.path, affine, unit_mm=unit), warnings


def _find_unit(fields: Fields) -> float:
    names = set(re.findall(r'"([^"]*)"', fields.text.get("space units", '""')))
    units = {_UNITS_MM.get(name.strip().lower()) for name in names}
    unit = units.pop() if len(units) == 1 else None
    if unit is None:
        raise fields.error(
            f"its space units are {fields.shown('space units')}; one known unit for all axes is"
            " supported"
        )
    return unit


def _find_spacing(fields: Fields, axes: tuple[int, int, int]) -> tuple[float, ...] | None:
    if "spacings" not in fields.text:
        return None
    numbers = fields.numbers("spacings")
    if len(numbers) <= max(axes):
        raise fields.error(f"damaged header: its spacings are '{fields.shown('spacings')}'")
    sides = tuple(abs(numbers[axis]) for axis in axes)
    if all(math.isnan(side) for side in sides):
        return None
    check_spacing(fields.path, np.array(sides))
    return sides


def _find_type(fields: Fields) -> str:
    """Return the type of a value as MetaImage names it."""
    found = _TYPE_OF_NAME.get(" ".join(fields.require("type").lower().split()))
    if found is None:
        raise fields.unsupported_type("type")
    if ITEM_BYTES[found] > 1 and fields.text.get("endian", "").lower() not in ("little", "big"):
        raise fields.error("its header does not define the byte order (endian)")
    return found


def _find_packing(fields: Fields) -> Packing:
    encoding = fields.require("encoding").lower()
    if encoding not in _PACKINGS:
        raise fields.error(
            f"its voxels are encoded as '{shorten_header(encoding)}'; raw and gzip are supported"
        )
    fields.require_zero("line skip", "byte skip")
    return _PACKINGS[encoding]

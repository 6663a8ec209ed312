"""MetaImage headers (.mha, .mhd), parsed and checked as text.

Read: one file, or a header with one data file in the same folder; raw or zlib; integers and real
numbers; three axes, with any number of channels. Coordinates are left-posterior-superior, as in
ITK. The affine in right-anterior-superior changes signs, which is exact, and multiplies direction
and spacing, which is rounded.

Source:
    Kitware, MetaIO documentation, itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from segnetr.data.readers.image_file import TextHeader, check_affine
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

_SYNONYMS = {
    "Position": "Offset", "Origin": "Offset", "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix", "BinaryDataByteOrderMSB": "ElementByteOrderMSB",
}  # fmt: skip
_LENGTH_TOLERANCE = 1e-3


def read_meta_header(path: Path, stream: BinaryIO, *, channels: int) -> ItkHeader:
    """Read and check a MetaImage header; see `read_nrrd_header`."""
    lines, data_start = _split_lines(path, read_head(path, stream))
    text: dict[str, str] = {}
    for name, _, value in lines:
        plain = _SYNONYMS.get(name, name)
        # Old writers set the byte order under both of its names.
        if text.setdefault(plain, value) != value:
            raise ReadError(path, f"damaged header: its {shorten_header(plain)} is defined twice")
    fields = Fields(path, text)
    sides = fields.sides("NDims", "DimSize", 10)
    values = int(fields.vector("ElementNumberOfChannels", 1, text.get(
        "ElementNumberOfChannels", "1"))[0])  # fmt: skip
    if values < 1:
        raise fields.error(f"its header claims {values} values per voxel; it is damaged")
    # The channels of one voxel are contiguous, like an axis before X.
    stored = (values, *sides) if values > 1 else sides
    spatial = list(range(len(stored)))[-len(sides) :]
    axes, channel_axis, warnings = choose_axes(path, stored, spatial, channels=channels)
    is_packed = fields.flag("CompressedData")
    data_name = fields.require("ElementDataFile")
    affine, spacing, more = _find_geometry(fields)
    if not fields.flag("BinaryData", "True"):
        raise fields.error("its voxels are text; BinaryData = True is supported")
    fields.require_zero("HeaderSize")
    if fields.require("ElementType") not in ITEM_BYTES:
        raise fields.unsupported_type("ElementType")
    return ItkHeader(
        source=TextHeader(form="meta", fields=lines, is_packed=is_packed),
        sides=stored,
        axes=axes,
        channel_axis=channel_axis,
        element_type=text["ElementType"],
        is_big_endian=fields.flag("ElementByteOrderMSB"),
        packing="zlib" if is_packed else "raw",
        data_name=None if data_name.upper() == "LOCAL" else data_name,
        data_start=data_start,
        affine=affine,
        spacing=spacing,
        warnings=warnings + more,
    )


def _split_lines(path: Path, head: bytes) -> tuple[tuple[tuple[str, str, str], ...], int]:
    """Split the header into name, separator and text. `ElementDataFile` is the last field."""
    lines: list[tuple[str, str, str]] = []
    position = 0
    while position < len(head):
        end = head.find(b"\n", position)
        line = head[position : end if end >= 0 else len(head)]
        is_whole, position = end >= 0, position + len(line) + 1
        name, equals, text = (part.strip() for part in line.partition(b"="))
        if not lines and name not in (b"ObjectType", b"NDims", b"Comment"):
            raise ReadError(
                path, "it is no MetaImage file: it does not begin with ObjectType or NDims"
            )
        if not is_whole and name != b"ElementDataFile":
            break
        if not line.strip():
            continue
        if not equals:
            raise ReadError(
                path,
                f"damaged header: '{shorten_header(decode_header(path, line))}' is no field",
            )
        lines.append((decode_header(path, name), " = ", decode_header(path, text)))
        if name == b"ElementDataFile":
            if not is_whole and text.upper() == b"LOCAL":
                break
            return tuple(lines), min(position, len(head))
    raise truncated_header(path, head)


def _find_geometry(fields: Fields) -> Geometry:
    """Return affine, spacing in mm, and warnings."""
    text = fields.text.get("ElementSpacing", fields.text.get("ElementSize"))
    if text is None:
        return None, None, ("the header defines no spacing",)
    spacing = fields.vector("ElementSpacing", 3, text)
    matrix = fields.vector(
        "TransformMatrix", 9, fields.text.get("TransformMatrix", "1 0 0 0 1 0 0 0 1")
    )
    # The first three numbers are the direction of X: a column of the affine.
    direction = np.array(matrix).reshape(3, 3).T
    affine = np.eye(4)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt((direction**2).sum(axis=0))
        affine[:3, :3] = direction * np.array(spacing)
    if not (np.abs(lengths - 1.0) <= _LENGTH_TOLERANCE).all():
        raise fields.error("its TransformMatrix is no rotation")
    affine[:3, 3] = fields.vector("Offset", 3, fields.text.get("Offset", "0 0 0"))
    affine[:2] *= -1.0
    affine += 0.0  # no minus zero
    return affine, check_affine(fields.path, affine), ()

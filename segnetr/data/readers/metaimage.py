"""MetaImage volumes (.mha, .mhd), judged before memory is taken and kept letter for letter.

Read: one file, or a header with one data file beside it; raw or zlib; integers and real numbers;
three axes, with any number of channels. Coordinates are left-posterior-superior, as ITK has them;
the affine is turned into right-anterior-superior by changing signs, which loses no bit but what
the product of direction and spacing costs.

Source:
    Kitware, MetaIO documentation, itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

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
from segnetr.data.readers.voxel_grid import check_affine
from segnetr.errors import ReadError

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_SAME_NAME = {
    "Position": "Offset", "Origin": "Offset", "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix", "BinaryDataByteOrderMSB": "ElementByteOrderMSB",
}  # fmt: skip
_NO_ROTATION = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
_LENGTH_TOLERANCE = 1e-3


def read_meta_image(path: Path, *, max_pixels: int, channels: int = 1) -> ImageFile:
    """Read a MetaImage volume.

    Args:
        path: A `.mha` or `.mhd` file.
        max_pixels: As in `segnetr.data.readers.nifti.read_volume`.
        channels: As there.

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
    sides, values = _find_sides(path, fields)
    # The values of one voxel stand together: an axis in front of X.
    stored = (values, *sides) if values > 1 else sides
    spatial = list(range(len(stored)))[-len(sides) :]
    axes, channel_axis, notes = choose_axes(path, stored, spatial, channels=channels)
    is_packed = _parse_flag(path, fields, "CompressedData")
    data_name = require_field(path, fields, "ElementDataFile")
    affine, spacing, more = _find_geometry(path, fields)
    layout = VoxelLayout(
        sides=stored,
        dtype=_find_dtype(path, fields),
        axes=axes,
        channel_axis=channel_axis,
        packing="zlib" if is_packed else "raw",
        data_name=None if data_name.upper() == "LOCAL" else data_name,
        data_start=data_start,
    )
    array = read_voxels(path, stream, layout, max_pixels=max_pixels)
    check_finite(path, array)
    return ImageFile(
        path=path,
        array=array,
        kind="volume",
        affine=affine,
        spacing=spacing,
        stored=TextHeader(form="meta", fields=lines, is_packed=is_packed),
        notes=notes + more,
    )


def _read_lines(path: Path, stream: BinaryIO) -> tuple[tuple[tuple[str, str, str], ...], int]:
    """Cut the header into name, separator and text; `ElementDataFile` ends it."""
    head = stream.read(MOST_HEADER_BYTES)
    if not head:
        raise ReadError(path, "the file is empty")
    lines: list[tuple[str, str, str]] = []
    position = 0
    while position < len(head):
        end = head.find(b"\n", position)
        if end < 0 and lines and b"ElementDataFile" not in head[position:]:
            break
        end = len(head) if end < 0 else end
        name, equals, text = _cut_line(path, head[position:end], is_first=not lines)
        is_whole, position = end < len(head), end + 1
        if not equals:
            continue
        lines.append((name, equals, text))
        if name == "ElementDataFile":
            if not is_whole and text.upper() == "LOCAL":
                break
            return tuple(lines), position
    raise ReadError(path, f"cut off inside its header: {len(head)} bytes are there")


def _cut_line(path: Path, line: bytes, *, is_first: bool) -> tuple[str, str, str]:
    name, equals, text = (part.strip() for part in line.partition(b"="))
    if is_first and name not in (b"ObjectType", b"NDims", b"Comment"):
        raise ReadError(path, "it is no MetaImage file: it does not begin with ObjectType or NDims")
    try:
        if line.strip() and not equals:
            raise ReadError(
                path, f"damaged header: the line '{shorten(line.decode('utf-8'))}' is no field"
            )
        return name.decode("utf-8"), " = " if equals else "", text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReadError(path, "damaged header: it is no text") from error


def _index_fields(path: Path, lines: tuple[tuple[str, str, str], ...]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, _, text in lines:
        plain = _SAME_NAME.get(name, name)
        # Writers of old set the order of bytes by both of its names.
        if fields.get(plain, text) != text:
            raise ReadError(path, f"damaged header: its {shorten(plain)} stands there twice")
        fields[plain] = text
    return fields


def _find_sides(path: Path, fields: Mapping[str, str]) -> tuple[tuple[int, ...], int]:
    axes = parse_integers(path, "NDims", require_field(path, fields, "NDims"))
    sides = parse_integers(path, "DimSize", require_field(path, fields, "DimSize"))
    text = fields.get("ElementNumberOfChannels", "1")
    values = parse_integers(path, "ElementNumberOfChannels", text)
    if (
        axes != (len(sides),)
        or not 1 <= len(sides) <= 10
        or min(sides) < 1
        or len(values) != 1
        or values[0] < 1
    ):
        raise ReadError(
            path,
            f"its header claims {shorten(fields['NDims'])} axes of {shorten(fields['DimSize'])}"
            f" voxels with {shorten(text)} values each; it is damaged",
        )
    return sides, values[0]


def _parse_flag(path: Path, fields: Mapping[str, str], name: str) -> bool:
    text = fields.get(name, "False")
    if text.lower() not in ("true", "false", "1", "0", "t", "f"):
        raise ReadError(path, f"damaged header: its {name} is '{shorten(text)}'")
    return text.lower() in ("true", "1", "t")


def _find_dtype(path: Path, fields: Mapping[str, str]) -> "np.dtype[np.generic]":
    if not _parse_flag(path, {"BinaryData": "True", **fields}, "BinaryData"):
        raise ReadError(path, "its voxels are text; BinaryData = True is read")
    if fields.get("HeaderSize", "0") != "0":
        raise ReadError(path, f"its HeaderSize is {shorten(fields['HeaderSize'])}; only 0 is read")
    name = require_field(path, fields, "ElementType")
    if name not in _TYPES:
        raise ReadError(
            path, f"its voxels are '{shorten(name)}'; integers and real numbers are read"
        )
    return np.dtype(
        (">" if _parse_flag(path, fields, "ElementByteOrderMSB") else "<") + _TYPES[name]
    )


def _find_geometry(
    path: Path, fields: Mapping[str, str]
) -> tuple[NDArray[np.float64] | None, tuple[float, ...] | None, tuple[str, ...]]:
    """Give affine (right, anterior, superior), spacing in mm, and notes."""
    text = fields.get("ElementSpacing", fields.get("ElementSize"))
    if text is None:
        return None, None, ("it says nothing of its spacing",)
    spacing = _parse_vector(path, "ElementSpacing", text, 3)
    matrix = fields.get("TransformMatrix")
    turns = _NO_ROTATION if matrix is None else _parse_vector(path, "TransformMatrix", matrix, 9)
    # The first three numbers are the direction of X: a column of the affine.
    direction = np.array(turns).reshape(3, 3).T
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt((direction**2).sum(axis=0))
    if not (np.abs(lengths - 1.0) <= _LENGTH_TOLERANCE).all():
        raise ReadError(path, "its TransformMatrix is no rotation")
    origin = fields.get("Offset")
    affine = np.eye(4)
    with np.errstate(over="ignore", invalid="ignore"):
        affine[:3, :3] = direction * np.array(spacing)
    affine[:3, 3] = (0.0, 0.0, 0.0) if origin is None else _parse_vector(path, "Offset", origin, 3)
    affine[:2] *= -1.0
    affine += 0.0  # no minus zero
    return affine, check_affine(path, affine), ()


def _parse_vector(path: Path, name: str, text: str, length: int) -> tuple[float, ...]:
    numbers = parse_numbers(path, name, text)
    if len(numbers) != length:
        raise ReadError(path, f"its {name} has {len(numbers)} numbers where {length} are expected")
    return numbers

"""Masks as NRRD and MetaImage files, under the very letters of their image's header.

Of a header that was read nothing changes but what speaks of values and of where they lie; fields of
geometry are copied as text, so no number is parsed and written again. A volume of another format
gets a new header, with numbers in as many digits as bring back the same float64.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.nrrd_header import DIRECTION
from segnetr.data.readers.source_header import TextHeader

# Fields that speak of values, or of where they lie; written anew or left away.
_NRRD_OWN = {"type", "dimension", "sizes", "encoding", "endian", "datafile", "lineskip", "byteskip",
             "blocksize", "min", "max", "oldmin", "oldmax", "sampleunits"}  # fmt: skip
_NRRD_BY_AXIS: Mapping[str, Callable[[str], list[str]]] = {
    "space directions": DIRECTION.findall,
    "labels": re.compile(r'"(?:[^"\\]|\\.)*"').findall,
    "units": re.compile(r'"(?:[^"\\]|\\.)*"').findall,
    **dict.fromkeys(
        ("kinds", "centerings", "centers", "spacings", "thicknesses", "axis mins", "axismins",
         "axis maxs", "axismaxs"),
        str.split,
    ),
}  # fmt: skip
_META_OWN = {"ElementType", "ElementNumberOfChannels", "CompressedData", "CompressedDataSize",
             "BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "HeaderSize",
             "ElementMin", "ElementMax", "ElementDataFile"}  # fmt: skip


def encode_text_volume(labels: NDArray[np.uint8], header: TextHeader, *, level: int) -> bytes:
    """Put a mask behind a header.

    Args:
        labels: (X, Y, Z).
        header: That of the image, or of `make_text_header`.
        level: Of packing, 1 to 9, where the image is packed.

    Returns:
        The whole file, without the time of day, so that equal masks are equal files.
    """
    voxels = labels.tobytes(order="F")
    if header.form == "nrrd":
        packed = gzip.compress(voxels, compresslevel=level, mtime=0) if header.is_packed else voxels
        return _write_nrrd(labels.shape, header) + packed
    packed = zlib.compress(voxels, level) if header.is_packed else voxels
    return _write_meta(header, len(packed)) + packed


def make_text_header(
    form: Literal["nrrd", "meta"],
    shape: Sequence[int],
    *,
    affine: NDArray[np.float64] | None,
    spacing: Sequence[float] | None,
) -> TextHeader:
    """Make a header for a volume that came without one.

    Args:
        form: The format.
        shape: (X, Y, Z).
        affine: (4, 4), to right, anterior, superior in mm; None: unknown.
        spacing: Voxel sides in mm where the affine is unknown; None: unknown as well.
    """
    if affine is not None:
        affine = affine.copy()
        affine[:2] *= -1.0
        affine += 0.0  # no minus zero
    fields = _nrrd_fields(affine, spacing) if form == "nrrd" else _meta_fields(affine, spacing)
    if form == "meta":
        sides = " ".join(str(side) for side in shape)
        fields = [("ObjectType", "Image"), ("NDims", "3"), *fields, ("DimSize", sides)]
    separator = ": " if form == "nrrd" else " = "
    return TextHeader(form=form, fields=tuple((name, separator, text) for name, text in fields))


def _nrrd_fields(
    affine: NDArray[np.float64] | None, spacing: Sequence[float] | None
) -> list[tuple[str, str]]:
    if affine is None:
        return [] if spacing is None else [("spacings", _join(spacing, " "))]
    vectors = [f"({_join(affine[:3, column], ',')})" for column in range(4)]
    return [
        ("space", "left-posterior-superior"),
        ("space directions", " ".join(vectors[:3])),
        ("kinds", "domain domain domain"),
        ("space origin", vectors[3]),
    ]


def _meta_fields(
    affine: NDArray[np.float64] | None, spacing: Sequence[float] | None
) -> list[tuple[str, str]]:
    if affine is None:
        return [] if spacing is None else [("ElementSpacing", _join(spacing, " "))]
    sides = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return [
        # Column by column: the first three numbers are the direction of X.
        ("TransformMatrix", _join((affine[:3, :3] / sides).T.ravel(), " ")),
        ("Offset", _join(affine[:3, 3], " ")),
        ("CenterOfRotation", "0 0 0"),
        ("ElementSpacing", _join(sides, " ")),
    ]


def _join(numbers: Sequence[float] | NDArray[np.float64], between: str) -> str:
    return between.join(repr(float(number)) for number in numbers)


def _write_nrrd(shape: Sequence[int], header: TextHeader) -> bytes:
    lines = [
        "NRRD0005",
        "type: uint8",
        "dimension: 3",
        f"sizes: {' '.join(str(side) for side in shape)}",
        f"encoding: {'gzip' if header.is_packed else 'raw'}",
    ]
    for name, separator, text in header.fields:
        plain = name.strip().lower()
        if separator == ":=" or plain.replace(" ", "") not in _NRRD_OWN:
            kept = text if separator == ":=" else _keep_axes(plain, text, header.axes)
            lines.append(f"{name}{separator}{kept}")
    return ("\n".join(lines) + "\n\n").encode("utf-8")


def _keep_axes(name: str, text: str, axes: Sequence[int]) -> str:
    """Leave away what a field says of axes that a mask does not have."""
    if name not in _NRRD_BY_AXIS:
        return text
    words = _NRRD_BY_AXIS[name](text)
    if len(words) == len(axes) or len(words) <= max(axes):
        return text
    return " ".join(words[axis] for axis in axes)


def _write_meta(header: TextHeader, packed_bytes: int) -> bytes:
    own = [("BinaryData", "True"), ("BinaryDataByteOrderMSB", "False")]
    own.append(("CompressedData", str(header.is_packed)))
    if header.is_packed:
        own.append(("CompressedDataSize", str(packed_bytes)))
    kept = [(name, text) for name, _, text in header.fields if name not in _META_OWN]
    last = [("ElementType", "MET_UCHAR"), ("ElementDataFile", "LOCAL")]
    # ObjectType and NDims come first: readers know the format by them.
    fields = [*kept[:2], *own, *kept[2:], *last]
    return "".join(f"{name} = {text}\n" for name, text in fields).encode("utf-8")

"""Write masks as NRRD and MetaImage files that keep the header of their image.

SimpleITK writes the voxels. Geometry and all other fields of the image's header are copied as
text, so no number is parsed and written again. An image in another format gets a new header, whose
numbers have enough digits to restore the same float64.
"""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.image_file import TextHeader
from segnetr.data.readers.itk import load_simpleitk
from segnetr.data.readers.nrrd_header import DIRECTION
from segnetr.errors import WriteError

# Fields that describe the voxels of a file; those of the mask are different.
_NRRD_VOXEL_FIELDS = {"type", "dimension", "sizes", "encoding", "endian", "datafile", "lineskip",
             "byteskip", "blocksize", "min", "max", "oldmin", "oldmax", "sampleunits"}  # fmt: skip
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
_META_VOXEL_FIELDS = {"ElementType", "ElementNumberOfChannels", "CompressedData",
             "CompressedDataSize", "BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB",
             "HeaderSize", "ElementMin", "ElementMax", "ElementDataFile"}  # fmt: skip


def encode_text_volume(labels: NDArray[np.uint8], header: TextHeader, *, level: int) -> bytes:
    """Return a mask as an NRRD or MetaImage file.

    SimpleITK writes the voxels and the fields that describe them. All other fields, among them the
    geometry, are copied from `header` as text, because SimpleITK would round them.

    Args:
        labels: (X, Y, Z).
        header: The header of the image, or of `make_text_header`.
        level: Compression level, 1 to 9. Used if the image is compressed.

    Returns:
        The whole file. It holds no time stamp, so equal masks are equal files.
    """
    sitk = load_simpleitk()
    suffix = ".nrrd" if header.form == "nrrd" else ".mha"
    with tempfile.TemporaryDirectory(prefix="segnetr-") as folder:
        path = Path(folder, f"mask{suffix}")
        image = sitk.GetImageFromArray(labels.transpose(2, 1, 0))
        try:
            sitk.WriteImage(image, str(path), header.is_packed, compressionLevel=level)
        except RuntimeError as error:
            raise WriteError(
                f"cannot write {path}: {' '.join(str(error).split())[-120:]}; free space there"
            ) from error
        written = path.read_bytes()
    if header.form == "nrrd":
        head, end, voxels = written.partition(b"\n\n")
        return _merge_nrrd(head.decode(), header).encode() + end + voxels
    head, end, voxels = written.partition(b"ElementDataFile = LOCAL\n")
    return _merge_meta(head.decode(), header).encode() + end + voxels


def make_text_header(
    form: Literal["nrrd", "meta"],
    shape: Sequence[int],
    *,
    affine: NDArray[np.float64] | None,
    spacing: Sequence[float] | None,
) -> TextHeader:
    """Return a header for a volume of another format.

    Args:
        form: The file format.
        shape: (X, Y, Z).
        affine: (4, 4), to right, anterior, superior in mm, or None if unknown.
        spacing: Voxel sides in mm, used without an affine; or None if unknown.
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


def _merge_nrrd(written: str, header: TextHeader) -> str:
    """Combine the voxel fields that SimpleITK wrote with all other fields of a header."""
    lines = [
        line
        for line in written.split("\n")
        if line.startswith("NRRD") or line.partition(":")[0].replace(" ", "") in _NRRD_VOXEL_FIELDS
    ]
    for name, separator, text in header.fields:
        plain = name.strip().lower()
        if separator == ":=" or plain.replace(" ", "") not in _NRRD_VOXEL_FIELDS:
            selected = text if separator == ":=" else _select_axes(plain, text, header.axes)
            lines.append(f"{name}{separator}{selected}")
    return "\n".join(lines)


def _select_axes(name: str, text: str, axes: Sequence[int]) -> str:
    """Return the entries of a field for the axes that the mask has."""
    if name not in _NRRD_BY_AXIS:
        return text
    words = _NRRD_BY_AXIS[name](text)
    if len(words) == len(axes) or len(words) <= max(axes):
        return text
    return " ".join(words[axis] for axis in axes)


def _merge_meta(written: str, header: TextHeader) -> str:
    """Combine the voxel fields that SimpleITK wrote with all other fields of a header."""
    fields = [line.partition(" = ") for line in written.splitlines()]
    voxel = [(name, text) for name, _, text in fields if name in _META_VOXEL_FIELDS]
    other = [(name, text) for name, _, text in header.fields if name not in _META_VOXEL_FIELDS]
    # ObjectType and NDims come first: readers recognize the format by them.
    merged = [*other[:2], *voxel, *other[2:]]
    return "".join(f"{name} = {text}\n" for name, text in merged)

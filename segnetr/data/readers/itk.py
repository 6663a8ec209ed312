"""NRRD and MetaImage volumes, read by SimpleITK after our own integrity check.

The header is checked before memory is allocated (`itk_header.py`). Then the voxel data are read to
their end once, in chunks, to compare their length with the header and to verify checksums. Only
then does SimpleITK, which is imported here on first use, decode the file. This costs a second pass
over the data, but no second copy in memory.
"""

import io
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.gzip_stream import LARGEST_RATIO, read_chunks
from segnetr.data.readers.image_file import (
    NRRD_SUFFIXES,
    ImageFile,
    check_extent,
    check_finite,
    describe_os_error,
)
from segnetr.data.readers.itk_header import ITEM_BYTES, ItkHeader, shorten_header
from segnetr.data.readers.meta_header import read_meta_header
from segnetr.data.readers.nrrd_header import read_nrrd_header
from segnetr.errors import ReadError


def read_itk_volume(path: Path, *, max_pixels: int, channels: int = 1) -> ImageFile:
    """Read an NRRD or MetaImage volume.

    Args:
        path: A `.nrrd`, `.nhdr`, `.mha` or `.mhd` file.
        max_pixels: Reject more values than this before memory is allocated.
        channels: Expected values per voxel.

    Returns:
        An array (X, Y, Z) or (X, Y, Z, C) in native byte order, with the header text as stored.

    Raises:
        ReadError: If the file is missing, damaged, truncated, longer than its header claims, too
            large, not supported, or has NaN or infinite values or an invalid geometry.
    """
    is_nrrd = path.name.lower().endswith(NRRD_SUFFIXES)
    try:
        with path.open("rb") as stream:
            read_header = read_nrrd_header if is_nrrd else read_meta_header
            header = read_header(path, stream, channels=channels)
            check_extent(path, header.sides, max_pixels=max_pixels)
            data_path = _find_data(path, header)
            with data_path.open("rb") as data:
                data.seek(0 if header.data_name else header.data_start)
                packed_bytes = _check_data(path, data, header)
        array = _decode(path, data_path, header, packed_bytes)
    except OSError as error:
        raise ReadError(path, describe_os_error(error)) from error
    except MemoryError as error:
        raise ReadError(path, "there is not enough memory for it") from error
    check_finite(path, array)
    return ImageFile(
        path=path,
        array=array,
        kind="volume",
        affine=header.affine,
        spacing=header.spacing,
        source_header=header.source,
        warnings=header.warnings,
    )


def _find_data(path: Path, header: ItkHeader) -> Path:
    """Return the file with the voxels. Only a plain file name in the same folder is accepted."""
    name = header.data_name
    if name is None:
        return path
    is_plain = name not in ("", ".", "..") and "\0" not in name and all(
        kind(name).name == name for kind in (PurePosixPath, PureWindowsPath)
    )  # fmt: skip
    if not is_plain:
        raise ReadError(
            path,
            f"its header places the voxels in '{shorten_header(name)}'; only a data file with a"
            " plain name in the same folder is read",
        )
    if not (path.parent / name).is_file():
        raise ReadError(path, f"its data file {name} is not beside it")
    return path.parent / name


def _check_data(path: Path, stream: BinaryIO, header: ItkHeader) -> int:
    """Read the voxel data to their end, and compare their length with the header.

    Returns:
        The number of bytes in the file, compressed or not.

    Raises:
        ReadError: If data are missing, damaged or left over. A length that the file cannot hold is
            rejected before anything is read.
    """
    start, needed = stream.tell(), header.num_bytes
    stored = stream.seek(0, io.SEEK_END) - start
    stream.seek(start)
    possible = stored if header.packing == "raw" else stored * LARGEST_RATIO
    if needed > possible:
        raise ReadError(
            path, f"cut off: {needed} bytes of voxels belong to it, {possible} can be there"
        )
    found = stored
    if header.packing != "raw":
        found = 0
        for chunk in read_chunks(path, stream, header.packing):
            found += len(chunk)
            if found > needed:
                break
    if found < needed:
        raise ReadError(path, f"cut off: {found} of {needed} bytes of voxels are there")
    if found > needed:
        raise ReadError(path, f"longer than its header says: {needed} bytes of voxels belong to it")
    return stored


def _decode(path: Path, data: Path, header: ItkHeader, packed_bytes: int) -> NDArray[Any]:
    """Read the voxels with SimpleITK, without a copy, and order the axes as X, Y, Z, C.

    SimpleITK gets a new MetaImage header that holds checked fields only, and a link to the data:
    its own parsers crash on some damaged headers (`docs/adr/0006-simpleitk.md`). MetaImage can
    describe the data of both formats.
    """
    sitk = load_simpleitk()
    sides = [side for side in header.sides if side > 1] or [1]
    with tempfile.TemporaryDirectory(prefix="segnetr-") as folder:
        link, detached = Path(folder, "data"), Path(folder, "header.mhd")
        _link(data, link)
        detached.write_text(_describe(header, sides, packed_bytes), encoding="ascii")
        try:
            image = sitk.ReadImage(str(detached), imageIO="MetaImageIO")
        except RuntimeError as error:
            detail = str(error).strip().rpartition("\n")[2].strip()[:120]
            raise ReadError(path, f"SimpleITK cannot read it: {detail}") from error
    flat = np.asarray(_SharedArray(image, sitk.GetArrayViewFromImage(image))).reshape(-1)
    if flat.nbytes != header.num_bytes or flat.itemsize != ITEM_BYTES[header.element_type]:
        raise ReadError(path, "SimpleITK reads another size or type than its header claims")
    axes = header.axes if header.channel_axis is None else (*header.axes, header.channel_axis)
    others = tuple(axis for axis in range(len(header.sides)) if axis not in axes)  # of length 1
    ordered = flat.reshape(header.sides, order="F").transpose(*axes, *others)
    return ordered.reshape([header.sides[axis] for axis in axes])


def _link(data: Path, link: Path) -> None:
    try:
        link.symlink_to(data.absolute())
    except OSError:  # a system or account without symbolic links
        shutil.copyfile(data, link)


def _describe(header: ItkHeader, sides: Sequence[int], packed_bytes: int) -> str:
    is_packed = header.packing != "raw"
    lines = [
        "ObjectType = Image",
        f"NDims = {len(sides)}",
        "BinaryData = True",
        f"BinaryDataByteOrderMSB = {header.is_big_endian}",
        f"CompressedData = {is_packed}",
        *([f"CompressedDataSize = {packed_bytes}"] if is_packed else []),
        f"HeaderSize = {0 if header.data_name else header.data_start}",
        f"DimSize = {' '.join(map(str, sides))}",
        f"ElementType = {header.element_type}",
        "ElementDataFile = data",
    ]
    return "\n".join(lines) + "\n"


class _SharedArray:
    """An array that uses the memory of a SimpleITK image, and keeps the image alive."""

    def __init__(self, image: Any, view: NDArray[Any]) -> None:
        self._image = image
        self.__array_interface__ = view.__array_interface__


@cache
def load_simpleitk() -> Any:
    """Import SimpleITK on first use, since the import takes long, and silence its warnings."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # type: ignore[no-untyped-call]
    return SimpleITK

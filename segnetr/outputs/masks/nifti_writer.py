"""Write NIfTI voxels plane by plane, with the stored header of the image."""

import gzip
import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray

from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.engine.inference.label_store import walk_planes

_MM = 2  # NIfTI's code of millimeters
_SCANNER = 1  # NIfTI's code of scanner coordinates
_SAME_UNIT = 1e-6


def find_header(image: ImageFile | VolumeFile) -> Nifti1Header:
    """Return a copy of the stored header, or a header from the affine if there is none."""
    header: Nifti1Header
    if image.header is not None:
        header = image.header.copy()
        return header
    header = Nifti1Header()
    header.set_data_shape(image.grid)
    header.set_xyzt_units(_MM)
    affine = affine_in_mm(image)
    if affine is None:
        # Codes of 0: the position is unknown.
        header["pixdim"][1:4] = image.spacing or 1.0
        return header
    header.set_qform(affine, code=_SCANNER)
    header.set_sform(affine, code=_SCANNER)
    return header


def affine_in_mm(image: ImageFile | VolumeFile) -> NDArray[np.float64] | None:
    """Return the affine with lengths in mm, unchanged if they are in mm; None: unknown."""
    if image.affine is None or image.spacing is None:
        return image.affine
    sides = np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
    unit = float(image.spacing[0] / sides[0])
    if abs(unit - 1.0) < _SAME_UNIT:
        return image.affine
    scaled: NDArray[np.float64] = image.affine.copy()
    scaled[:3] *= unit
    return scaled


def write_voxels(
    stream: BinaryIO, values: NDArray[Any], header: Nifti1Header, *, path: Path, level: int
) -> None:
    """Write a header and voxels. Only type, scaling and K of the header are changed.

    `nibabel.Nifti1Image` is not used, since it corrects unusual header fields. Writing plane by
    plane avoids a copy of a large volume; a memory-mapped volume is never loaded completely.

    Args:
        stream: Output.
        values: (X, Y, Z) or (X, Y, Z, K).
        header: Header of the image; modified.
        path: Name of the file, which determines whether it is compressed.
        level: Compression level, 1 to 9.

    Raises:
        ValueError: If the values do not fit the header.
    """
    _fit_header(header, values, path)
    if not path.name.lower().endswith(".gz"):
        _write_plain(stream, values, header)
        return
    # Without name and time, so that equal predictions give equal files.
    with gzip.GzipFile("", "wb", fileobj=stream, mtime=0, compresslevel=level) as packed:
        _write_plain(packed, values, header)


def _fit_header(header: Nifti1Header, values: NDArray[Any], path: Path) -> None:
    if values.ndim == 4:
        header["dim"][0], header["dim"][4:] = 4, (values.shape[3], 1, 1, 1)
        header["pixdim"][4] = 1.0
    elif (header["dim"][4 : 1 + int(header["dim"][0])] > 1).any():
        header["dim"][0], header["dim"][4:] = 3, 1  # the mask has no channels
    claimed = int(np.prod(header["dim"][1 : 1 + int(header["dim"][0])].astype(np.int64)))
    if claimed != values.size:
        raise ValueError(f"{path}: {values.size} voxels for a header of {claimed}")
    header.set_data_dtype(values.dtype.newbyteorder(header.endianness))
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["vox_offset"] = 0  # nibabel replaces 0 by the end of header and extensions


def _write_plain(
    stream: BinaryIO | gzip.GzipFile, values: NDArray[Any], header: Nifti1Header
) -> None:
    start = io.BytesIO()
    header.write_to(start)
    stream.write(start.getvalue())
    stored = values.dtype.newbyteorder(header.endianness)
    for volume in np.moveaxis(values, -1, 0) if values.ndim == 4 else [values]:
        for plane in walk_planes(volume):
            stream.write(plane.astype(stored, copy=False).tobytes(order="F"))

"""Child process that parses DICOM. `series.py` starts it and never imports it."""

import warnings as python_warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import pydicom
from numpy.typing import NDArray

from segnetr.data.readers.dicom.geometry import SliceVolume, arrange, choose_series
from segnetr.data.readers.dicom.headers import (
    PARSE_ERRORS,
    DicomSource,
    SliceHeader,
    describe_dicom_damage,
    read_headers,
)
from segnetr.data.readers.dicom.sandbox import ChildReply, answer_parent
from segnetr.data.readers.image_file import check_extent
from segnetr.errors import ReadError

_INVERTED = "low values are bright (MONOCHROME1); they are not inverted"


def work(request: Mapping[str, Any], stream: IO[bytes]) -> ChildReply:
    """Return the series of a source, or the voxels of one series.

    Args:
        request: `path`; `action`, "list" or "read"; for "read", `series` or None and `max_pixels`.
        stream: Not used.

    Returns:
        For "list" the UIDs of the series with images. For "read" the geometry, and the slices in
        order, row by row.

    Raises:
        ReadError: As `segnetr.data.readers.dicom.series.read_dicom`.
    """
    del stream
    source = DicomSource(Path(request["path"]))
    headers = read_headers(source)
    if request["action"] == "list":
        uids = sorted({header.uid for header in headers if header.rows > 0})
        return {"series": uids}, ()
    chosen = choose_series(source.path, headers, request["series"])
    first = chosen[0]
    extent = (first.columns, first.rows, len(chosen))
    check_extent(source.path, extent, max_pixels=request["max_pixels"])
    volume = arrange(source.path, chosen)
    facts = {
        "series": first.uid,
        "names": [header.name for header in volume.slices],
        "extent": extent,
        "dtype": volume.dtype,
        "affine": volume.affine.tolist(),
        "warnings": ["low values are bright (MONOCHROME1); they are not inverted"]
        if first.inverted
        else [],
    }
    return facts, _read_slices(source, volume)


def _read_slices(source: DicomSource, volume: SliceVolume) -> Iterator[bytes]:
    for header in volume.slices:
        try:
            with source.open(header.name) as stream:
                values = _read_pixels(source.full_path(header.name), header, stream)
        except PARSE_ERRORS as error:
            raise describe_dicom_damage(source.full_path(header.name), error) from error
        if volume.dtype == "float32":
            scaled = values.astype(np.float32) * np.float32(header.slope)
            values = scaled + np.float32(header.intercept)
        elif (header.slope, header.intercept) != (1.0, 0.0):
            values = values.astype(np.int64) * int(header.slope) + int(header.intercept)
        yield np.ascontiguousarray(values.astype(volume.dtype)).tobytes()


def _read_pixels(path: Path, header: SliceHeader, stream: IO[bytes]) -> NDArray[Any]:
    data = pydicom.dcmread(stream)
    if "PixelData" not in data:
        raise ReadError(path, "cut off: its pixels are missing")
    if data.file_meta.TransferSyntaxUID.is_compressed:
        try:
            values = data.pixel_array
        except (RuntimeError, NotImplementedError, AttributeError, ImportError) as error:
            name = data.file_meta.TransferSyntaxUID.name
            raise ReadError(
                path, f"no decoder for its pixels ({name}) is installed; gdcmconv --raw unpacks it"
            ) from error
    else:
        needed = header.rows * header.columns * int(data.BitsAllocated) // 8
        if len(data.PixelData) < needed:
            present = len(data.PixelData)
            raise ReadError(path, f"cut off: {present} of {needed} bytes of pixels are there")
        values = data.pixel_array
    if values.shape != (header.rows, header.columns):
        raise ReadError(path, f"its pixels are {values.shape}, which its header does not say")
    return np.asarray(values)


if __name__ == "__main__":
    # Warnings of pydicom are either harmless or followed by an error of our own.
    python_warnings.simplefilter("ignore")
    answer_parent(work)

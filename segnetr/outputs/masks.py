"""Masks as files, on the grid, with the header and in the format of their image.

* Pictures: 8 bit, one channel. Two classes are written as 0 and 255, as ISIC does, more classes as
  their index. Probabilities are a 16-bit PNG of the foreground (65535 is 1) for two classes, else
  `probabilities` (K, H, W) float16 in an .npz file.
* Volumes: NIfTI, class indices in uint8. Every header field but those of the data type and the
  scaling is the image's, bit for bit, so affine, codes and units are too; only the axis of an image
  of several channels is left away. Probabilities are
  float32 `_prob.nii.gz`: the foreground (X, Y, Z) for two classes, else (X, Y, Z, K).

* NRRD and MetaImage: the same, under the text of the image's header (`text_volumes`). DICOM series:
  a DICOM-SEG object (`dicom_seg`). TIFF of several pages: class indices, page by page. Where
  `--format` asks for another format, the affine is carried over in the digits that format has.
* A palette PNG holds class indices, and shows them in the colours of the outlines.

Every file is written aside and renamed, the mask last: where there is a mask, all is there.
"""

import gzip
import io
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray
from PIL import Image

from segnetr.data.files.stored_header import DicomSeries, TextHeader
from segnetr.data.readers import ImageFile
from segnetr.engine.manifest import as_write_error, write_bytes
from segnetr.engine.predictor import Prediction
from segnetr.errors import ReadError
from segnetr.outputs.dicom_seg import encode_segmentation
from segnetr.outputs.overlay import CLASS_COLOURS, Colour, draw_overlay
from segnetr.outputs.plan import (
    PlannedOutput,
    is_nifti_name,
    overlay_path,
    plan_outputs,
    probability_path,
)
from segnetr.outputs.text_volumes import encode_text_volume, make_text_header

__all__ = ["PlannedOutput", "plan_outputs", "write_prediction"]

_TEXT_FORMS: Mapping[str, Literal["nrrd", "meta"]] = {".nrrd": "nrrd", ".mha": "meta"}
_TIFF_SUFFIXES = (".tif", ".tiff")
_SAME_UNIT = 1e-6
_MM = 2  # NIfTI's code of millimetres
_SCANNER = 1  # NIfTI's code of scanner coordinates
# Probabilities hardly pack, and the higher levels take minutes for a large volume.
_MASK_LEVEL, _PROBABILITY_LEVEL = 6, 1


def write_prediction(
    prediction: Prediction,
    image: ImageFile,
    *,
    out: Path,
    relative: Path,
    save_prob: bool = False,
    overlay: bool = False,
    colours: Sequence[Colour] = CLASS_COLOURS,
    palette: bool = False,
    classes: Sequence[str] = (),
) -> list[Path]:
    """Write the mask of one image, and what else is wanted.

    Args:
        prediction: Labels, and probabilities if `save_prob`, on the grid of `image`.
        image: The image they belong to, as read.
        out: The output folder; made if it is not there.
        relative: The mask's path below it, from `plan_outputs`; its suffix is the format.
        save_prob: Write the probabilities as well.
        overlay: Write a picture of the image with the outlines of the mask as well.
        colours: Colours of the outlines, foreground classes in order, repeated as needed.
        palette: Write the mask of a picture as a palette of these colours.
        classes: Names of the classes, background first, for formats that keep them; else numbers.

    Returns:
        The files written, the mask first.

    Raises:
        WriteError: If a file cannot be written; an older one is then untouched.
        ReadError: If the image is a volume and the format has no place for it.
        ValueError: If the prediction is not on the grid of the image, or has no probabilities
            where they are to be saved.
    """
    if prediction.labels.shape != image.grid:
        raise ValueError(
            f"{image.path}: labels {prediction.labels.shape} on a grid of {image.grid}"
        )
    mask = out / relative
    contents: dict[Path, bytes] = {}
    if overlay:
        drawn = draw_overlay(image, prediction.labels, colours=colours)
        contents[overlay_path(mask)] = _encode_picture(drawn, ".png")
    if save_prob:
        path, content = _encode_probabilities(prediction, image, mask)
        contents[path] = content
    if palette and image.kind == "picture":
        contents[mask] = _encode_palette(prediction.labels, colours)
    else:
        contents[mask] = _encode_mask(prediction, image, mask, classes)
    for path, content in contents.items():
        _write_atomic(path, content)
    return list(reversed(contents))


def _encode_mask(
    prediction: Prediction, image: ImageFile, mask: Path, classes: Sequence[str]
) -> bytes:
    labels = prediction.labels
    if image.kind == "volume":
        names = classes or [str(number) for number in range(prediction.num_classes)]
        return _encode_labels(labels, image, mask, names)
    if prediction.num_classes == 2:
        labels = labels * np.uint8(255)
    return _encode_picture(labels, mask.suffix.lower())


def _encode_labels(
    labels: NDArray[np.uint8], image: ImageFile, mask: Path, classes: Sequence[str]
) -> bytes:
    """Write the mask of a volume in the format of its name."""
    suffix = mask.suffix.lower()
    if is_nifti_name(mask):
        return _encode_volume(labels, _find_header(image), mask, level=_MASK_LEVEL)
    if suffix in _TEXT_FORMS:
        header = _find_text_header(image, _TEXT_FORMS[suffix])
        return encode_text_volume(labels, header, level=_MASK_LEVEL)
    if suffix == ".dcm" and isinstance(image.stored, DicomSeries):
        return encode_segmentation(labels, image.stored, classes=classes)
    if suffix in _TIFF_SUFFIXES:
        return _encode_pages(labels)
    raise ReadError(
        image.path, f"it is a volume of {image.grid[2]} slices, and {suffix} holds a picture"
    )


def _encode_probabilities(
    prediction: Prediction, image: ImageFile, mask: Path
) -> tuple[Path, bytes]:
    probabilities = prediction.probabilities
    if probabilities is None:
        raise ValueError("the prediction was made without keep_probabilities=True")
    is_binary = prediction.num_classes == 2
    if image.kind == "volume" and image.affine is not None:
        path = probability_path(mask, ".nii.gz")
        values = probabilities[1] if is_binary else np.moveaxis(probabilities, 0, -1)
        return path, _encode_volume(values, _find_header(image), path, level=_PROBABILITY_LEVEL)
    if is_binary and image.kind == "picture":
        deep = np.rint(probabilities[1] * 65535).astype(np.uint16)
        return probability_path(mask, ".png"), _encode_picture(deep, ".png")
    return probability_path(mask, ".npz"), _encode_npz(probabilities.astype(np.float16))


def _encode_picture(pixels: NDArray[Any], suffix: str) -> bytes:
    options: dict[str, Any] = {
        ".png": {"format": "PNG"},
        ".bmp": {"format": "BMP"},
        ".tif": {"format": "TIFF", "compression": "tiff_deflate"},
        ".tiff": {"format": "TIFF", "compression": "tiff_deflate"},
    }[suffix]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, **options)
    return buffer.getvalue()


def _encode_palette(labels: NDArray[np.uint8], colours: Sequence[Colour]) -> bytes:
    picture = Image.fromarray(np.ascontiguousarray(labels))
    table = [(0, 0, 0), *(colours[number % len(colours)] for number in range(255))]
    picture.putpalette([value for colour in table for value in colour])
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _encode_pages(labels: NDArray[np.uint8]) -> bytes:
    """Write (X, Y, Z) as pages of rows and columns."""
    pages = [Image.fromarray(np.ascontiguousarray(page)) for page in labels.transpose(2, 1, 0)]
    buffer = io.BytesIO()
    pages[0].save(
        buffer,
        format="TIFF",
        compression="tiff_deflate",
        save_all=True,
        append_images=pages[1:],
    )
    return buffer.getvalue()


def _encode_npz(probabilities: NDArray[np.float16]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, probabilities=probabilities)
    return buffer.getvalue()


def _find_header(image: ImageFile) -> Nifti1Header:
    """Copy the header as stored, or make one from the affine of an image that came without."""
    header: Nifti1Header
    if image.header is not None:
        header = image.header.copy()
        return header
    header = Nifti1Header()
    header.set_data_shape(image.grid)
    header.set_xyzt_units(_MM)
    affine = _affine_in_mm(image)
    if affine is None:
        # Codes of 0: it is not known where it lies.
        header["pixdim"][1:4] = image.spacing or 1.0
        return header
    header.set_qform(affine, code=_SCANNER)
    header.set_sform(affine, code=_SCANNER)
    return header


def _find_text_header(image: ImageFile, form: Literal["nrrd", "meta"]) -> TextHeader:
    """Give the header as stored, or one made for an image of another format."""
    if isinstance(image.stored, TextHeader) and image.stored.form == form:
        return image.stored
    return make_text_header(form, image.grid, affine=_affine_in_mm(image), spacing=image.spacing)


def _affine_in_mm(image: ImageFile) -> NDArray[np.float64] | None:
    """Give the affine with lengths in mm, untouched where they are so already."""
    if image.affine is None or image.spacing is None:
        return image.affine
    sides = np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
    unit = float(image.spacing[0] / sides[0])
    if abs(unit - 1.0) < _SAME_UNIT:
        return image.affine
    scaled = image.affine.copy()
    scaled[:3] *= unit
    return scaled


def _encode_volume(values: NDArray[Any], header: Nifti1Header, path: Path, *, level: int) -> bytes:
    """Put voxels behind a header, of which nothing but type, scaling and K is changed.

    Not through `nibabel.Nifti1Image`, which repairs what it finds odd in a header.
    """
    if values.ndim == 4:
        header["dim"][0], header["dim"][4:] = 4, (values.shape[3], 1, 1, 1)
        header["pixdim"][4] = 1.0
    elif (header["dim"][4 : 1 + int(header["dim"][0])] > 1).any():
        header["dim"][0], header["dim"][4:] = 3, 1  # the mask has no channels
    claimed = int(np.prod(header["dim"][1 : 1 + int(header["dim"][0])].astype(np.int64)))
    if claimed != values.size:
        raise ValueError(f"{path}: {values.size} voxels under a header of {claimed}")
    stored = values.astype(values.dtype.newbyteorder(header.endianness), copy=False)
    header.set_data_dtype(stored.dtype)
    header["scl_slope"], header["scl_inter"] = 1.0, 0.0
    header["vox_offset"] = 0  # asks nibabel for the first place behind header and extensions
    buffer = io.BytesIO()
    header.write_to(buffer)
    buffer.write(stored.tobytes(order="F"))
    content = buffer.getvalue()
    if path.name.lower().endswith(".gz"):
        # Without the time of day, so that equal predictions are equal files.
        return gzip.compress(content, compresslevel=level, mtime=0)
    return content


def _write_atomic(path: Path, content: bytes) -> None:
    # Not after the mask, whose name may be as long as the disk allows already.
    aside = path.with_name(f".{os.getpid()}-{threading.get_ident()}.partial")
    with as_write_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_bytes(aside, content)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

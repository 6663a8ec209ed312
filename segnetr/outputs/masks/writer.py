"""Write masks on the grid, with the header and in the format of their image.

* Images: 8 bit, one channel. Two classes are written as 0 and 255, as ISIC does, more classes as
  their index. Probabilities are a 16-bit PNG of the foreground (65535 is 1) for two classes, else
  `probabilities` (K, H, W) float16 in an .npz file.
* Volumes: NIfTI, class indices in uint8. Every header field except data type and scaling
  is copied bit for bit, including affine, codes and units; only the channel axis of an image of
  several channels is removed. Probabilities are float32 `_prob.nii.gz`: the
  foreground (X, Y, Z) for two classes, else (X, Y, Z, K).
* Uncertainty maps, `_entropy` (0 to 1) and `_variance` (0 to 0.5): float32 `.nii.gz` for a volume
  with an affine, 16-bit PNG for an image (65535 is the largest value), else `.npz`.
* NRRD and MetaImage: class indices, with the header of the image (`nrrd_metaimage_writer`). DICOM
  series: a DICOM-SEG object (`dicom_seg`). TIFF of several pages: class indices, page by page. If
  `--format` requests another format, the affine is converted with the precision of that format.
* A palette PNG contains class indices and shows them in the colors of the outlines.

Every file is written under a temporary name and renamed, the mask last: if the mask exists, all
other results exist.
"""

import io
import os
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segnetr.data.readers.image_file import DicomSeries, ImageFile, SourceHeader, TextHeader
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.engine.inference.predictor import Prediction
from segnetr.errors import ReadError
from segnetr.outputs.masks.dicom_seg import encode_segmentation
from segnetr.outputs.masks.nifti_writer import affine_in_mm
from segnetr.outputs.masks.nrrd_metaimage_writer import encode_text_volume, make_text_header
from segnetr.outputs.masks.output_paths import (
    OutputPath,
    is_nifti_name,
    overlay_path,
    plan_output_paths,
    probability_path,
)
from segnetr.outputs.masks.overlay import CLASS_COLORS, RGB, draw_overlay
from segnetr.outputs.masks.uncertainty_writer import (
    PROBABILITY_LEVEL,
    Write,
    plan_uncertainty,
    plan_volume,
    write_image,
)
from segnetr.storage.disk_errors import as_write_error

__all__ = ["OutputPath", "plan_output_paths", "write_prediction"]

_TEXT_FORMS: Mapping[str, Literal["nrrd", "meta"]] = {".nrrd": "nrrd", ".mha": "meta"}
_TIFF_SUFFIXES = (".tif", ".tiff")
_MASK_LEVEL = 6


def write_prediction(
    prediction: Prediction,
    image: ImageFile | VolumeFile,
    *,
    out: Path,
    relative: Path,
    save_prob: bool = False,
    save_uncertainty: bool = False,
    overlay: bool = False,
    colors: Sequence[RGB] = CLASS_COLORS,
    palette: bool = False,
    classes: Sequence[str] = (),
) -> list[Path]:
    """Write the mask of one image and the other requested results.

    Args:
        prediction: Labels, and probabilities if `save_prob`, on the grid of `image`.
        image: The image.
        out: The output folder; created if it does not exist.
        relative: Path of the mask below it, from `plan_output_paths`; its suffix is the format.
        save_prob: Also write the probabilities.
        save_uncertainty: Also write the uncertainty maps.
        overlay: Also write the image with the outlines of the mask.
        colors: Colors of the outlines, foreground classes in order, repeated as needed.
        palette: Write the mask of an image as a palette PNG of these colors.
        classes: Names of the classes, background first, for formats that store them; none: numbers.

    Returns:
        The files written, the mask first.

    Raises:
        WriteError: If a file cannot be written; an existing one is then unchanged.
        ReadError: If the image is a volume and the format cannot store volumes.
        ValueError: If the prediction is not on the grid of the image, or lacks probabilities that
            should be saved.
    """
    if prediction.labels.shape != image.grid:
        raise ValueError(
            f"{image.path}: labels {prediction.labels.shape} on a grid of {image.grid}"
        )
    mask = out / relative
    contents: dict[Path, Write] = {}
    if overlay:
        drawing = draw_overlay(image, prediction.labels, colors=colors)
        contents[overlay_path(mask)] = partial(write_image, pixels=drawing, suffix=".png")
    if save_prob:
        path, write = _plan_probabilities(prediction, image, mask)
        contents[path] = write
    if save_uncertainty:
        contents |= plan_uncertainty(prediction, image, mask)
    if palette and image.kind == "image":
        contents[mask] = partial(_write_palette, labels=prediction.labels, colors=colors)
    else:
        contents[mask] = _plan_mask(prediction, image, mask, classes)
    for path, write in contents.items():
        _write_atomic(path, write)
    return list(reversed(contents))


def _plan_mask(
    prediction: Prediction, image: ImageFile | VolumeFile, mask: Path, classes: Sequence[str]
) -> Write:
    labels = prediction.labels
    if image.kind == "volume":
        if is_nifti_name(mask):
            return plan_volume(labels, image, mask, level=_MASK_LEVEL)
        names = classes or [str(number) for number in range(prediction.num_classes)]
        content = _encode_labels(labels, image, mask, names)
        return lambda stream: stream.write(content)
    if prediction.num_classes == 2:
        labels = labels * np.uint8(255)
    return partial(write_image, pixels=labels, suffix=mask.suffix.lower())


def _encode_labels(
    labels: NDArray[np.uint8], image: ImageFile | VolumeFile, mask: Path, classes: Sequence[str]
) -> bytes:
    """Return the mask of a volume as a file in the format of its name, other than NIfTI."""
    suffix = mask.suffix.lower()
    stored = image.source_header if isinstance(image, ImageFile) else None
    if suffix in _TEXT_FORMS:
        header = _find_text_header(image, stored, _TEXT_FORMS[suffix])
        return encode_text_volume(labels, header, level=_MASK_LEVEL)
    if suffix == ".dcm" and isinstance(stored, DicomSeries):
        return encode_segmentation(labels, stored, classes=classes)
    if suffix in _TIFF_SUFFIXES:
        return _encode_pages(labels)
    raise ReadError(
        image.path, f"it is a volume of {image.grid[2]} slices, and {suffix} holds an image"
    )


def _find_text_header(
    image: ImageFile | VolumeFile, stored: SourceHeader | None, form: Literal["nrrd", "meta"]
) -> TextHeader:
    """Return the stored header, or a new one for an image of another format."""
    if isinstance(stored, TextHeader) and stored.form == form:
        return stored
    return make_text_header(form, image.grid, affine=affine_in_mm(image), spacing=image.spacing)


def _plan_probabilities(
    prediction: Prediction, image: ImageFile | VolumeFile, mask: Path
) -> tuple[Path, Write]:
    probabilities = prediction.probabilities
    if probabilities is None:
        raise ValueError("the prediction was made without keep_probabilities=True")
    is_binary = prediction.num_classes == 2
    if image.kind == "volume" and image.affine is not None:
        path = probability_path(mask, ".nii.gz")
        values = probabilities[1] if is_binary else np.moveaxis(probabilities, 0, -1)
        return path, plan_volume(values, image, path, level=PROBABILITY_LEVEL)
    if is_binary and image.kind == "image":
        deep = np.rint(probabilities[1] * 65535).astype(np.uint16)
        path = probability_path(mask, ".png")
        return path, partial(write_image, pixels=deep, suffix=".png")
    halves = probabilities.astype(np.float16)
    return probability_path(mask, ".npz"), partial(np.savez_compressed, probabilities=halves)


def _write_palette(stream: BinaryIO, *, labels: NDArray[np.uint8], colors: Sequence[RGB]) -> None:
    image = Image.fromarray(np.ascontiguousarray(labels))
    table = [(0, 0, 0), *(colors[number % len(colors)] for number in range(255))]
    image.putpalette([value for color in table for value in color])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    stream.write(buffer.getbuffer())


def _encode_pages(labels: NDArray[np.uint8]) -> bytes:
    """Return (X, Y, Z) as a TIFF file with pages of rows and columns."""
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


def _write_atomic(path: Path, write: Write) -> None:
    # Not derived from the name of the mask, which may already have the maximum length.
    aside = path.with_name(f".{os.getpid()}-{threading.get_ident()}.partial")
    with as_write_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with aside.open("wb") as stream:
                write(stream)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

"""Uncertainty maps and probabilities on the grid of a mask: their paths and writers."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.engine.inference.accumulator import MAX_VARIANCE
from segnetr.engine.inference.predictor import Prediction
from segnetr.outputs.masks.nifti_writer import find_header, write_voxels
from segnetr.outputs.masks.output_paths import uncertainty_path

Write: TypeAlias = Callable[[BinaryIO], object]
"""Write a file into a stream."""

PROBABILITY_LEVEL = 1
"""Probabilities are hardly compressible, and higher levels take minutes for a large volume."""


def plan_uncertainty(
    prediction: Prediction, image: ImageFile | VolumeFile, mask: Path
) -> dict[Path, Write]:
    """Return the path and the writer of each uncertainty map; the entropy is last.

    Raises:
        ValueError: If the prediction has no uncertainty maps.
    """
    maps = prediction.uncertainty
    if maps is None:
        raise ValueError("the prediction was made without keep_uncertainty=True")
    writers: dict[Path, Write] = {}
    for kind, values, highest in (
        ("variance", maps.variance, MAX_VARIANCE),
        ("entropy", maps.entropy, 1.0),
    ):
        if values is None:
            continue
        if image.kind == "volume" and image.affine is not None:
            path = uncertainty_path(mask, kind, ".nii.gz")
            writers[path] = plan_volume(values, image, path, level=PROBABILITY_LEVEL)
        elif image.kind == "image":
            deep = np.rint(values * (65535 / highest)).astype(np.uint16)
            path = uncertainty_path(mask, kind, ".png")
            writers[path] = partial(write_image, pixels=deep, suffix=".png")
        else:
            path = uncertainty_path(mask, kind, ".npz")
            writers[path] = _plan_arrays(kind, values)
    return writers


def plan_volume(
    values: NDArray[Any], image: ImageFile | VolumeFile, path: Path, *, level: int
) -> Write:
    """Return a writer of voxels (X, Y, Z) or (X, Y, Z, K) with the header of their image."""
    header = find_header(image)
    return partial(write_voxels, values=values, header=header, path=path, level=level)


def write_image(stream: BinaryIO, *, pixels: NDArray[Any], suffix: str) -> None:
    """Write an image (H, W) or (H, W, 3) in the format of a suffix."""
    options: dict[str, Any] = {
        ".png": {"format": "PNG"},
        ".bmp": {"format": "BMP"},
        ".tif": {"format": "TIFF", "compression": "tiff_deflate"},
        ".tiff": {"format": "TIFF", "compression": "tiff_deflate"},
    }[suffix]
    # Encode in memory: on a full disk, encoders raise errors of their own types.
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, **options)
    stream.write(buffer.getbuffer())


def _plan_arrays(kind: str, values: NDArray[np.float32]) -> Write:
    return lambda stream: np.savez_compressed(stream, allow_pickle=False, **{kind: values})

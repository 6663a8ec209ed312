"""One image and its mask, read and compared: what a worker process of the audit does.

It stands apart from the audit so that a worker starts without torch and MONAI.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segnetr.data.readers.image_file import (
    ClassValues,
    ImageFile,
    MaskFile,
    MaskSizeError,
    MaskValuesError,
)
from segnetr.data.readers.read_files import read_ground_truth, read_image
from segnetr.errors import ReadError

NO_FOREGROUND = "mask-empty"
"""Kind of the finding that a mask is sound and shows nothing: a issue only if every mask does."""

# In voxels, at the corner that is furthest away: the same geometry written by different programs
# differs in its last digits.
_MOST_SHIFT = 0.1


class Finding(NamedTuple):
    """A issue without its case: the short code, the file, and the message."""

    kind: str
    path: Path
    message: str


def check_files(
    image: Path,
    masks: Sequence[Path],
    *,
    classes: int,
    values: ClassValues | None = None,
    max_pixels: int,
    volume_channels: int = 1,
) -> list[Finding]:
    """Read an image and its mask, and compare their grids.

    Args:
        image: The image file.
        masks: The files of its ground truth, if there are any.
        classes: Number of classes, background included.
        values: As in `read_mask_file`.
        max_pixels: As in `read_image`.
        volume_channels: As in `read_image`.

    Returns:
        What is wrong; nothing for a sound pair; `NO_FOREGROUND` for a sound mask of background.
    """
    findings = []
    pixels = ground_truth = None
    try:
        pixels = read_image(image, volume_channels=volume_channels, max_pixels=max_pixels)
    except ReadError as error:
        findings.append(Finding("image-unreadable", image, str(error)))
    if not masks:
        return findings
    try:
        ground_truth = read_ground_truth(
            masks, classes=classes, values=values, max_pixels=max_pixels
        )
    except MaskValuesError as error:
        findings.append(Finding("mask-values", error.path, str(error)))
    except MaskSizeError as error:
        findings.append(Finding("size-mismatch", error.path, str(error)))
    except ReadError as error:
        findings.append(Finding("mask-unreadable", error.path, str(error)))
    if pixels is not None and ground_truth is not None:
        different = compare_grids(pixels, ground_truth)
        if different is not None:
            kind, reason = different
            findings.append(Finding(kind, ground_truth.path, f"{ground_truth.path}: {reason}"))
    if ground_truth is not None and not ground_truth.array.any():
        findings.append(
            Finding(NO_FOREGROUND, ground_truth.path, f"{ground_truth.path}: it shows no object")
        )
    return findings


def compare_grids(image: ImageFile, mask: MaskFile) -> tuple[str, str] | None:
    """Say why a mask does not lie on its image, or None where it does.

    Returns:
        The short code and the reason, to stand behind the mask's name.
    """
    size = image.grid
    if size != mask.array.shape:
        reason = (
            f"the mask is {_show(mask.array.shape)} where its image {image.path.name} is"
            f" {_show(size)}; leave the case out or repair the mask"
        )
        return "size-mismatch", reason
    if image.affine is None or mask.affine is None:
        return None
    step = min(np.linalg.norm(image.affine[:3, :3], axis=0))
    corners = np.array(list(itertools.product(*((0, side) for side in size), (1,))))
    moved = np.linalg.norm(corners @ (image.affine - mask.affine).T, axis=1).max() / step
    if moved <= _MOST_SHIFT:
        return None
    reason = (
        f"the mask lies {moved:.3g} voxels away from its image {image.path.name};"
        f" their affines differ (spacing {_show_spacing(image)} and {_show_spacing(mask)} mm)"
    )
    return "grid-mismatch", reason


def _show(size: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in size)


def _show_spacing(file: ImageFile | MaskFile) -> str:
    return " x ".join(f"{side:.4g}" for side in file.spacing or ())

"""One image and its mask, read and compared: what a worker process of the audit does.

It stands apart from the audit so that a worker starts without torch and MONAI.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from segnetr.data.image_file import (
    ClassValues,
    ImageFile,
    MaskFile,
    MaskSizeError,
    MaskValuesError,
)
from segnetr.data.read_files import read_image
from segnetr.data.truth import read_truth
from segnetr.errors import ReadError

NO_FOREGROUND = "mask-empty"
"""Kind of the finding that a mask is sound and shows nothing: a fault only if every mask does."""

# In voxels, at the corner that is furthest away: the same geometry written by different programs
# differs in its last digits.
_MOST_SHIFT = 0.1


class Finding(NamedTuple):
    """A fault without its case: the short code, the file, and the message."""

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
) -> list[Finding]:
    """Read an image and its mask, and compare their grids.

    Args:
        image: The image file.
        masks: The files of its truth, if there are any.
        classes: Number of classes, background included.
        values: As in `read_mask_file`.
        max_pixels: As in `read_image`.

    Returns:
        What is wrong; nothing for a sound pair; `NO_FOREGROUND` for a sound mask of background.
    """
    findings = []
    picture = truth = None
    try:
        picture = read_image(image, max_pixels=max_pixels)
    except ReadError as error:
        findings.append(Finding("image-unreadable", image, str(error)))
    if not masks:
        return findings
    try:
        truth = read_truth(masks, classes=classes, values=values, max_pixels=max_pixels)
    except MaskValuesError as error:
        findings.append(Finding("mask-values", error.path, str(error)))
    except MaskSizeError as error:
        findings.append(Finding("size-mismatch", error.path, str(error)))
    except ReadError as error:
        findings.append(Finding("mask-unreadable", error.path, str(error)))
    if picture is not None and truth is not None:
        findings += _compare_grids(picture, truth)
    if truth is not None and not truth.array.any():
        findings.append(Finding(NO_FOREGROUND, truth.path, f"{truth.path}: it shows no object"))
    return findings


def _compare_grids(image: ImageFile, mask: MaskFile) -> list[Finding]:
    size = image.array.shape[:2] if image.kind == "picture" else image.array.shape
    if size != mask.array.shape:
        message = (
            f"{mask.path}: the mask is {_show(mask.array.shape)} where its image"
            f" {image.path.name} is {_show(size)}; leave the case out or repair the mask"
        )
        return [Finding("size-mismatch", mask.path, message)]
    if image.affine is None or mask.affine is None:
        return []
    step = min(np.linalg.norm(image.affine[:3, :3], axis=0))
    corners = np.array(list(itertools.product(*((0, side) for side in size), (1,))))
    moved = np.linalg.norm(corners @ (image.affine - mask.affine).T, axis=1).max() / step
    if moved <= _MOST_SHIFT:
        return []
    message = (
        f"{mask.path}: the mask lies {moved:.3g} voxels away from its image {image.path.name};"
        " their affines differ"
    )
    return [Finding("grid-mismatch", mask.path, message)]


def _show(size: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in size)

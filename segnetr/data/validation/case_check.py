"""Read an image and its mask and compare them, in a worker process of the audit.

Worker processes import this module, so it must not import torch or MONAI.
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
"""Kind of a valid mask without foreground, which is an issue only if every mask is empty."""

# Largest distance of two corresponding corners in voxels. Programs round affines differently.
_MAX_SHIFT = 0.1


class FileIssue(NamedTuple):
    """An issue before it is assigned to its case: code, file and message."""

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
) -> list[FileIssue]:
    """Read an image and its mask, and compare their grids.

    Args:
        image: The image file.
        masks: The mask files. May be empty.
        classes: Number of classes, including background.
        values: As in `read_mask_file`.
        max_pixels: As in `read_image`.
        volume_channels: As in `read_image`.

    Returns:
        The issues. Empty for a valid pair, `NO_FOREGROUND` for a valid mask of background only.
    """
    issues = []
    pixels = ground_truth = None
    try:
        pixels = read_image(image, volume_channels=volume_channels, max_pixels=max_pixels)
    except ReadError as error:
        issues.append(FileIssue("image-unreadable", image, str(error)))
    if not masks:
        return issues
    try:
        ground_truth = read_ground_truth(
            masks, classes=classes, values=values, max_pixels=max_pixels
        )
    except MaskValuesError as error:
        issues.append(FileIssue("mask-values", error.path, str(error)))
    except MaskSizeError as error:
        issues.append(FileIssue("size-mismatch", error.path, str(error)))
    except ReadError as error:
        issues.append(FileIssue("mask-unreadable", error.path, str(error)))
    if pixels is not None and ground_truth is not None:
        mismatch = compare_grids(pixels, ground_truth)
        if mismatch is not None:
            kind, reason = mismatch
            issues.append(FileIssue(kind, ground_truth.path, f"{ground_truth.path}: {reason}"))
    if ground_truth is not None and not ground_truth.array.any():
        issues.append(
            FileIssue(
                NO_FOREGROUND, ground_truth.path, f"{ground_truth.path}: it has no foreground"
            )
        )
    return issues


def compare_grids(image: ImageFile, mask: MaskFile) -> tuple[str, str] | None:
    """Check that an image and its mask have the same grid.

    Returns:
        None, or the code and the message (without the mask's file name) of the mismatch.
    """
    size = image.grid
    if size != mask.array.shape:
        reason = (
            f"the mask is {_show(mask.array.shape)}, but its image {image.path.name} is"
            f" {_show(size)}; leave the case out or correct the mask"
        )
        return "size-mismatch", reason
    if image.affine is None or mask.affine is None:
        return None
    step = min(np.linalg.norm(image.affine[:3, :3], axis=0))
    corners = np.array(list(itertools.product(*((0, side) for side in size), (1,))))
    moved = np.linalg.norm(corners @ (image.affine - mask.affine).T, axis=1).max() / step
    if moved <= _MAX_SHIFT:
        return None
    reason = (
        f"the mask is {moved:.3g} voxels away from its image {image.path.name};"
        f" their affines differ (spacing {_show_spacing(image)} and {_show_spacing(mask)} mm)"
    )
    return "grid-mismatch", reason


def _show(size: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in size)


def _show_spacing(file: ImageFile | MaskFile) -> str:
    return " x ".join(f"{side:.4g}" for side in file.spacing or ())

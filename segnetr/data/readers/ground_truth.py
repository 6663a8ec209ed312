"""The ground truth of a case: one mask file, or several of which each shows one object."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segnetr.data.readers.image_file import (
    DEFAULT_MAX_PIXELS,
    ClassValues,
    MaskFile,
    MaskSizeError,
    MaskValuesError,
)
from segnetr.data.readers.read_files import read_mask_file


def read_ground_truth(
    files: Sequence[Path],
    *,
    classes: int,
    values: ClassValues | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> MaskFile:
    """Read the ground truth of a case, and unite its files where there are several.

    Args:
        files: At least one mask file.
        classes: As in `read_mask_file`, for each file.
        values: As in `read_mask_file`, for each file.
        max_pixels: As in `read_image`, for each file.

    Returns:
        Class indices; path, affine and spacing are those of the first file.

    Raises:
        ReadError: If a file cannot be read; the error names it.
        MaskValuesError: If a file is no mask of these classes, or two give one pixel to different
            objects of different classes.
        MaskSizeError: If the files differ in size.
    """
    whole = read_mask_file(files[0], classes=classes, values=values, max_pixels=max_pixels)
    if len(files) == 1:
        return whole
    united, notes = whole.array.copy(), whole.notes
    for path in files[1:]:
        part = read_mask_file(path, classes=classes, values=values, max_pixels=max_pixels)
        if part.array.shape != united.shape:
            ours, theirs = (" x ".join(map(str, a.shape)) for a in (part.array, united))
            raise MaskSizeError(path, f"the mask is {ours} where {files[0].name} is {theirs}")
        marked = part.array > 0
        if ((united != part.array) & (united > 0) & marked).any():
            raise MaskValuesError(
                path, "it gives pixels to one class that another mask of its image gives to another"
            )
        united[marked] = part.array[marked]
        notes += part.notes
    return replace(whole, array=united, notes=tuple(dict.fromkeys(notes)))

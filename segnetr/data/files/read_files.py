"""Any file an application of this kind meets: which ones are images, and how each is read."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnetr.data.files.image_file import (
    DEFAULT_MAX_PIXELS,
    SUPPORTED_SUFFIXES,
    VOLUME_SUFFIXES,
    ClassValues,
    ImageFile,
    MaskFile,
    find_suffix,
)
from segnetr.data.files.mask_values import read_picture_mask, read_volume_mask
from segnetr.data.files.pictures import read_picture
from segnetr.data.files.volumes import read_volume
from segnetr.errors import ReadError, UsageError

_NO_IMAGE_ENDS = ("_superpixels.png",)


def is_supported(path: Path) -> bool:
    """Tell by its name, in any letter case, whether a file is one that is read."""
    return find_suffix(path) is not None


def read_image(
    path: Path,
    *,
    channels: int | None = None,
    volume_channels: int = 1,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> ImageFile:
    """Read a picture or a volume, every byte of it checked.

    Args:
        path: A PNG, JPEG, BMP, TIFF or NIfTI file.
        channels: For pictures: 3 repeats grey values, 1 turns colours into luminance, None leaves
            them.
        volume_channels: For volumes: values for each voxel, the length of a fourth axis.
        max_pixels: Refuse more pixels or voxels than this before memory is taken for them.

    Returns:
        A picture (H, W, C) or a volume (X, Y, Z), with several channels (X, Y, Z, C), on the grid
        of the file as stored.

    Raises:
        ReadError: If the file cannot be read or cannot be trusted; one line says why.
    """
    if _is_volume(path):
        return read_volume(path, max_pixels=max_pixels, channels=volume_channels)
    return read_picture(path, channels=channels, max_pixels=max_pixels)


def read_mask_file(
    path: Path,
    *,
    classes: int,
    values: ClassValues | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> MaskFile:
    """Read a mask with what is known about its file.

    Args:
        path: A PNG, JPEG, BMP, TIFF or NIfTI file.
        classes: Number of classes K, background included.
        values: The file's values of each class; None: class indices, or 0 and the highest value
            where there are two classes.
        max_pixels: As in `read_image`.

    Returns:
        Class indices 0..K-1, (H, W) or (X, Y, Z), with affine, spacing and notes.

    Raises:
        ReadError: If the file cannot be read, or its values are no mask of K classes.
    """
    if _is_volume(path):
        return read_volume_mask(path, classes=classes, values=values, max_pixels=max_pixels)
    return read_picture_mask(path, classes=classes, values=values, max_pixels=max_pixels)


def read_mask(
    path: Path, *, classes: int, max_pixels: int = DEFAULT_MAX_PIXELS
) -> NDArray[np.uint8]:
    """Read a mask as class indices; `read_mask_file` without its notes.

    Args:
        path: As in `read_mask_file`.
        classes: As in `read_mask_file`.
        max_pixels: As in `read_image`.

    Returns:
        Class indices 0..K-1, (H, W) or (X, Y, Z).

    Raises:
        ReadError: As `read_mask_file`.
    """
    return read_mask_file(path, classes=classes, max_pixels=max_pixels).array


def list_images(inputs: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Find the images among files and below folders.

    Folders are searched to the bottom, in the order of names. Hidden files and folders (`.x`,
    and with them the `._x` of macOS archives) and the `_superpixels.png` of ISIC are left out.

    Args:
        inputs: Files and folders.

    Returns:
        Each image once, with its path relative to the folder it was found below; a file that was
        named itself has its bare name.

    Raises:
        UsageError: If an input is missing, a file is of a kind that is not read, or a folder holds
            no image.
    """
    kinds = " ".join(SUPPORTED_SUFFIXES)
    found: dict[Path, tuple[Path, Path]] = {}
    for entry in inputs:
        if entry.is_dir():
            below = _walk_folder(entry)
            if not below:
                raise UsageError(f"{entry}: no images in this folder ({kinds} are read)")
        elif not entry.exists():
            raise UsageError(f"{entry}: no such file or folder")
        elif not is_supported(entry):
            raise UsageError(f"{entry}: this kind of file is not read ({kinds} are)")
        else:
            below = [(entry, Path(entry.name))]
        for path, relative in below:
            found.setdefault(path.resolve(), (path, relative))
    return list(found.values())


def _is_volume(path: Path) -> bool:
    suffix = find_suffix(path)
    if suffix is None:
        raise ReadError(path, f"this kind of file is not read ({' '.join(SUPPORTED_SUFFIXES)} are)")
    return suffix in VOLUME_SUFFIXES


def _walk_folder(folder: Path) -> list[tuple[Path, Path]]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(parent, name)
            left_out = name.startswith(".") or name.lower().endswith(_NO_IMAGE_ENDS)
            if not left_out and is_supported(path) and path.is_file():
                found.append((path, path.relative_to(folder)))
    return sorted(found)

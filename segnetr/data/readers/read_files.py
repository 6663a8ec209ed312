"""Any file an application of this kind meets, and how each is read."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.dicom.series import is_dicom_source, read_dicom
from segnetr.data.readers.image import read_image_file
from segnetr.data.readers.image_file import (
    DEFAULT_MAX_PIXELS,
    META_SUFFIXES,
    NRRD_SUFFIXES,
    SUPPORTED_SUFFIXES,
    VOLUME_SUFFIXES,
    ClassValues,
    ImageFile,
    MaskFile,
    find_suffix,
)
from segnetr.data.readers.itk import read_itk_volume
from segnetr.data.readers.masks import index_volume, read_image_mask
from segnetr.data.readers.nifti import read_volume
from segnetr.data.readers.tiff import TIFF_SUFFIXES, has_pages, read_tiff_pages
from segnetr.errors import ReadError


def is_supported(path: Path) -> bool:
    """Tell by its name, in any letter case, whether a file is one that is read."""
    return find_suffix(path) is not None


def is_volume(path: Path) -> bool:
    """Tell whether a file is read as a volume: by its name, a TIFF by its pages.

    Raises:
        ReadError: If it is of a kind that is not read.
    """
    suffix = find_suffix(path)
    if suffix is None:
        raise ReadError(path, f"this kind of file is not read ({' '.join(SUPPORTED_SUFFIXES)} are)")
    return suffix in VOLUME_SUFFIXES or has_pages(path)


def read_image(
    path: Path,
    *,
    channels: int | None = None,
    volume_channels: int = 1,
    series: str | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> ImageFile:
    """Read a image or a volume, every byte of it checked.

    Args:
        path: A PNG, JPEG, BMP, TIFF, NIfTI, NRRD or MetaImage file; a TIFF of several pages is a
            volume without spacing.
            A folder, zip file or file of DICOM is read as one series.
        channels: For images: 3 repeats gray values, 1 turns colors into luminance, None leaves
            them.
        volume_channels: For volumes: values for each voxel, the length of a fourth axis.
        series: For DICOM: SeriesInstanceUID, where a folder holds several.
        max_pixels: Refuse more pixels or voxels than this before memory is taken for them.

    Returns:
        A image (H, W, C) or a volume (X, Y, Z), with several channels (X, Y, Z, C), on the grid
        of the file as stored.

    Raises:
        ReadError: If the file cannot be read or cannot be trusted; one line says why.
    """
    if is_dicom_source(path):
        image = read_dicom(path, series=series, max_pixels=max_pixels)
        if volume_channels > 1:
            raise ReadError(path, f"it has 1 channel where {volume_channels} are wanted")
        return image
    if is_volume(path):
        return _read_volume(path, channels=volume_channels, max_pixels=max_pixels)
    return read_image_file(path, channels=channels, max_pixels=max_pixels)


def read_mask_file(
    path: Path,
    *,
    classes: int,
    values: ClassValues | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> MaskFile:
    """Read a mask with what is known about its file.

    Args:
        path: A PNG, JPEG, BMP, TIFF, NIfTI, NRRD or MetaImage file; a TIFF of several pages is a
            volume without spacing.
        classes: Number of classes K, background included.
        values: The file's values of each class; None: class indices, or 0 and the highest value
            where there are two classes.
        max_pixels: As in `read_image`.

    Returns:
        Class indices 0..K-1, (H, W) or (X, Y, Z), with affine, spacing and notes.

    Raises:
        ReadError: If the file cannot be read, or its values are no mask of K classes.
    """
    if is_volume(path):
        volume = _read_volume(path, channels=1, max_pixels=max_pixels)
        return index_volume(volume, classes=classes, values=values)
    return read_image_mask(path, classes=classes, values=values, max_pixels=max_pixels)


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


def _read_volume(path: Path, *, channels: int, max_pixels: int) -> ImageFile:
    suffix = find_suffix(path)
    if suffix in NRRD_SUFFIXES + META_SUFFIXES:
        return read_itk_volume(path, max_pixels=max_pixels, channels=channels)
    if suffix in TIFF_SUFFIXES:
        return read_tiff_pages(path, max_pixels=max_pixels)
    return read_volume(path, max_pixels=max_pixels, channels=channels)

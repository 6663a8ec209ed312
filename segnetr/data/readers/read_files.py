"""Open images, volumes and masks in any supported format."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.dicom.series import is_dicom_source, read_dicom
from segnetr.data.readers.image import CheckPixels, read_image_file
from segnetr.data.readers.image_file import (
    DEFAULT_MAX_PIXELS,
    IMAGE_SUFFIXES,
    META_SUFFIXES,
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    SUPPORTED_SUFFIXES,
    VOLUME_SUFFIXES,
    ClassValues,
    ImageFile,
    MaskFile,
    MaskSizeError,
    MaskValuesError,
    find_suffix,
)
from segnetr.data.readers.itk import read_itk_volume
from segnetr.data.readers.masks import index_volume, read_image_mask
from segnetr.data.readers.nifti import read_volume
from segnetr.data.readers.nifti_stream import VolumeFile, open_volume
from segnetr.data.readers.tiff import TIFF_SUFFIXES, has_pages, read_tiff_pages
from segnetr.errors import ReadError

# Only the labels of a streamed volume, one byte per voxel, are held in memory. A header that claims
# more than 2 GiB of them is considered damaged.
_MAX_STREAMED_VOXELS = 1 << 31


def is_supported(path: Path) -> bool:
    """Return whether the name of a file, in any letter case, has a supported suffix."""
    return find_suffix(path) is not None


def is_volume(path: Path) -> bool:
    """Return whether a file is a volume: by its name, for TIFF by its number of pages.

    Raises:
        ReadError: If the format is not supported.
    """
    return _is_volume(path, find_suffix(path))


def _is_volume(path: Path, suffix: str | None) -> bool:
    if suffix is None:
        raise ReadError(path, f"this kind of file is not read ({' '.join(SUPPORTED_SUFFIXES)} are)")
    return suffix in VOLUME_SUFFIXES or (suffix in TIFF_SUFFIXES and has_pages(path))


def open_image(
    path: Path,
    *,
    channels: int | None = None,
    volume_channels: int = 1,
    series: str | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    check_pixels: CheckPixels | None = None,
) -> ImageFile | VolumeFile:
    """Open an image or a volume and check every byte of it. NIfTI volumes stay on disk.

    The file is opened and its header is parsed once. All else is read as by `read_image`.

    Args:
        path: As in `read_image`.
        channels: As in `read_image`.
        volume_channels: As in `read_image`.
        series: As in `read_image`.
        max_pixels: As in `read_image`. NIfTI volumes may have 2^31 voxels.
        check_pixels: Called with the path and the number of pixels of an image before memory is
            allocated. It may raise `ReadError`. With it, volumes that would be read into memory
            are rejected.

    Raises:
        ReadError: As `read_image`, or if `check_pixels` rejects the file.
    """
    suffix = find_suffix(path)
    if suffix in NIFTI_SUFFIXES:
        return open_volume(path, max_pixels=_MAX_STREAMED_VOXELS, channels=volume_channels)
    if suffix in IMAGE_SUFFIXES and not (suffix in TIFF_SUFFIXES and has_pages(path)):
        return read_image_file(
            path, channels=channels, max_pixels=max_pixels, check_pixels=check_pixels
        )
    if check_pixels is not None and (suffix is not None or is_dicom_source(path)):
        raise ReadError(
            path,
            "--max-memory supports images and NIfTI volumes; convert the file to NIfTI, or omit the"
            " limit",
        )
    return read_image(
        path,
        channels=channels,
        volume_channels=volume_channels,
        series=series,
        max_pixels=max_pixels,
    )


def read_image(
    path: Path,
    *,
    channels: int | None = None,
    volume_channels: int = 1,
    series: str | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> ImageFile:
    """Read an image or a volume and check every byte of it.

    Args:
        path: A PNG, JPEG, BMP, TIFF, NIfTI, NRRD or MetaImage file. A TIFF file with several pages
            is a volume without spacing. A DICOM folder, zip file or file is read as one series.
        channels: For images: 3 repeats gray values, 1 converts colors to luminance, None keeps the
            number of channels.
        volume_channels: For volumes: values per voxel, the length of a fourth axis.
        series: For DICOM: SeriesInstanceUID, if a folder holds several series.
        max_pixels: Reject more pixels or voxels than this before memory is allocated.

    Returns:
        An image (H, W, C) or a volume (X, Y, Z), with several channels (X, Y, Z, C), on the grid
        of the stored file.

    Raises:
        ReadError: If the file cannot be read, is damaged or is not supported.
    """
    suffix = find_suffix(path)
    if suffix is None and is_dicom_source(path):
        image = read_dicom(path, series=series, max_pixels=max_pixels)
        if volume_channels > 1:
            raise ReadError(path, f"it has 1 channel where {volume_channels} are expected")
        return image
    if _is_volume(path, suffix):
        return _read_volume(path, suffix, channels=volume_channels, max_pixels=max_pixels)
    return read_image_file(path, channels=channels, max_pixels=max_pixels)


def read_mask_file(
    path: Path,
    *,
    classes: int,
    values: ClassValues | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> MaskFile:
    """Read a mask with its geometry and warnings.

    Args:
        path: A PNG, JPEG, BMP, TIFF, NIfTI, NRRD or MetaImage file. A TIFF file with several pages
            is a volume without spacing.
        classes: Number of classes K, background included.
        values: The values of each class in the file. None: class indices, or for two classes also 0
            and the highest value.
        max_pixels: As in `read_image`.

    Returns:
        Class indices 0..K-1, (H, W) or (X, Y, Z), with affine, spacing and warnings.

    Raises:
        ReadError: If the file cannot be read, or its values are not a mask of K classes.
    """
    suffix = find_suffix(path)
    if _is_volume(path, suffix):
        volume = _read_volume(path, suffix, channels=1, max_pixels=max_pixels)
        return index_volume(volume, classes=classes, values=values)
    return read_image_mask(path, classes=classes, values=values, max_pixels=max_pixels)


def read_mask(
    path: Path, *, classes: int, max_pixels: int = DEFAULT_MAX_PIXELS
) -> NDArray[np.uint8]:
    """Read the class indices of a mask; see `read_mask_file`.

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


def read_ground_truth(
    files: Sequence[Path],
    *,
    classes: int,
    values: ClassValues | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> MaskFile:
    """Read the ground truth of a case, and merge its mask files if there are several.

    Args:
        files: At least one mask file.
        classes: As in `read_mask_file`, for each file.
        values: As in `read_mask_file`, for each file.
        max_pixels: As in `read_image`, for each file.

    Returns:
        Class indices. Path, affine and spacing are those of the first file.

    Raises:
        ReadError: If a file cannot be read.
        MaskValuesError: If a file is not a mask of these classes, or two files assign different
            classes to a pixel.
        MaskSizeError: If the files differ in size.
    """
    whole = read_mask_file(files[0], classes=classes, values=values, max_pixels=max_pixels)
    if len(files) == 1:
        return whole
    merged, warnings = whole.array.copy(), whole.warnings
    for path in files[1:]:
        mask = read_mask_file(path, classes=classes, values=values, max_pixels=max_pixels)
        if mask.array.shape != merged.shape:
            ours, theirs = (" x ".join(map(str, a.shape)) for a in (mask.array, merged))
            raise MaskSizeError(path, f"the mask is {ours} where {files[0].name} is {theirs}")
        foreground = mask.array > 0
        if ((merged != mask.array) & (merged > 0) & foreground).any():
            raise MaskValuesError(
                path, "it assigns other classes to pixels than another mask of the same image"
            )
        merged[foreground] = mask.array[foreground]
        warnings += mask.warnings
    return replace(whole, array=merged, warnings=tuple(dict.fromkeys(warnings)))


def _read_volume(path: Path, suffix: str | None, *, channels: int, max_pixels: int) -> ImageFile:
    if suffix in NRRD_SUFFIXES + META_SUFFIXES:
        return read_itk_volume(path, max_pixels=max_pixels, channels=channels)
    if suffix in TIFF_SUFFIXES:
        return read_tiff_pages(path, max_pixels=max_pixels)
    return read_volume(path, max_pixels=max_pixels, channels=channels)

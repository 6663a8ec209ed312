"""Images, volumes and masks as read from files, and checks shared by all readers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray

from segnetr.errors import ReadError

DEFAULT_MAX_PIXELS = 200_000_000
"""Files with more pixels or voxels than this are rejected before they are read."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")
VOLUME_SUFFIXES = NIFTI_SUFFIXES + NRRD_SUFFIXES + META_SUFFIXES
SUPPORTED_SUFFIXES = IMAGE_SUFFIXES + VOLUME_SUFFIXES

FileValue: TypeAlias = int | tuple[int, int, int]
"""A value of a mask file: a gray value, palette index or label, or a color (red, green, blue)."""

ClassValues: TypeAlias = tuple[tuple[FileValue, ...], ...]
"""For each class, background first, the values of a mask file that denote it."""

_LEAST_SPACING_MM, _LARGEST_SPACING_MM = 1e-3, 1e3
_LEAST_DETERMINANT = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class TextHeader:
    """The unchanged header text of an NRRD or MetaImage file, from which its mask gets its header.

    Attributes:
        form: The file format.
        fields: Name, separator and text of each line in order, as in the file.
        axes: The axes of the file, fastest first, that are X, Y and Z.
        is_packed: Whether the voxels are compressed.
    """

    form: Literal["nrrd", "meta"]
    fields: tuple[tuple[str, str, str], ...]
    axes: tuple[int, int, int] = (0, 1, 2)
    is_packed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomSeries:
    """The slices of a DICOM series.

    Attributes:
        source: The folder, zip file or single file with the slices.
        uid: SeriesInstanceUID.
        names: File names in `source`, from the first slice along Z to the last.
    """

    source: Path
    uid: str
    names: tuple[str, ...]


SourceHeader: TypeAlias = TextHeader | DicomSeries


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """One image as its file stores it.

    Attributes:
        path: The file.
        array: An image (H, W, C), C = 1 or 3, rows from the top; or a volume (X, Y, Z) in the
            order of the file, (X, Y, Z, C) with several channels, such as MR modalities. The type
            is that of the file, in native byte order.
        kind: Whether `array` is an image or a volume.
        affine: (4, 4) float64 from voxel indices to world coordinates (right, anterior, superior)
            in the unit of the file. None for images and for volumes without geometry.
        spacing: Voxel sides along X, Y, Z in mm. None for images and for volumes without spacing.
        header: The NIfTI header exactly as stored, for writing a mask with the same geometry.
        source_header: The header of an NRRD, MetaImage or DICOM volume, for the same purpose.
        warnings: Changed or ignored properties of the file, one line each.
    """

    path: Path
    array: NDArray[Any]
    kind: Literal["image", "volume"]
    affine: NDArray[np.float64] | None = None
    spacing: tuple[float, ...] | None = None
    header: Nifti1Header | None = None
    source_header: SourceHeader | None = None
    warnings: tuple[str, ...] = ()

    @property
    def grid(self) -> tuple[int, ...]:
        """(H, W) of an image, (X, Y, Z) of a volume."""
        return self.array.shape[: 2 if self.kind == "image" else 3]

    @property
    def display_array(self) -> NDArray[Any]:
        """The values to display: an image (H, W, C), or the first channel (X, Y, Z) of a volume."""
        return self.array[..., 0] if self.array.ndim == 4 else self.array


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFile:
    """One mask as class indices.

    Attributes:
        path: The file.
        array: (H, W) or (X, Y, Z) uint8, values 0..classes-1, background 0.
        affine: As in `ImageFile`.
        spacing: As in `ImageFile`.
        warnings: As in `ImageFile`.
    """

    path: Path
    array: NDArray[np.uint8]
    affine: NDArray[np.float64] | None = None
    spacing: tuple[float, ...] | None = None
    warnings: tuple[str, ...] = ()


class MaskValuesError(ReadError):
    """A file that can be read, but whose values are not a mask."""


class MaskSizeError(ReadError):
    """A mask that can be read, but whose size differs from that of its image."""


def find_suffix(path: Path) -> str | None:
    """Return the supported suffix of a file in lower case, or None."""
    name = path.name.lower()
    return next((suffix for suffix in reversed(SUPPORTED_SUFFIXES) if name.endswith(suffix)), None)


def check_extent(path: Path, extent: tuple[int, ...], *, max_pixels: int) -> None:
    """Check the size in a header before memory is allocated.

    Args:
        path: The file, for the message.
        extent: Pixels or voxels along each axis.
        max_pixels: Maximum total number of pixels or voxels.

    Raises:
        ReadError: If an axis is empty or there are too many pixels.
    """
    claimed = " x ".join(str(side) for side in extent)
    unit = "pixels" if len(extent) == 2 else "voxels"
    if min(extent) < 1:
        raise ReadError(path, f"its header claims {claimed} {unit}; the file is broken")
    count = 1
    for side in extent:
        count *= side
    if count > max_pixels:
        raise ReadError(
            path,
            f"its header claims {claimed} = {count} {unit}, more than the limit of {max_pixels};"
            f" --set data.max_pixels={count} reads it",
        )


def check_finite(path: Path, array: NDArray[Any]) -> None:
    """Reject NaN and infinite values.

    Raises:
        ReadError: If there are any. The message contains their number.
    """
    if not np.issubdtype(array.dtype, np.floating):
        return
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise ReadError(
            path, f"{bad} of {array.size} values are NaN or infinite; replace them in the file"
        )


def describe_os_error(error: OSError) -> str:
    """Return the reason of a system error without the path."""
    return error.strerror or str(error) or type(error).__name__


def check_affine(
    path: Path, affine: NDArray[np.float64], *, unit_mm: float = 1.0
) -> tuple[float, ...]:
    """Check that an affine is plausible, and return the spacing.

    Args:
        path: The file, for messages.
        affine: (4, 4), from voxel indices to lengths in the file's unit.
        unit_mm: The unit in mm.

    Returns:
        Voxel sides along X, Y, Z in mm.

    Raises:
        ReadError: If a number is NaN or infinite, a side is shorter than 1e-3 mm or longer than
            1e3 mm, or the axes lie in one plane.
    """
    if not np.isfinite(affine).all():
        raise ReadError(path, "its affine holds NaN or infinite numbers")
    with np.errstate(over="ignore"):  # a header of text can hold 1e300
        sides = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    check_spacing(path, sides * unit_mm)
    # With unit vectors, so that a small spacing does not look like linearly dependent axes.
    if abs(np.linalg.det(affine[:3, :3] / sides)) < _LEAST_DETERMINANT:
        raise ReadError(path, "its affine has determinant 0: its axes do not span a volume")
    return tuple(float(side) for side in sides * unit_mm)


def check_spacing(path: Path, spacing: NDArray[np.float64]) -> None:
    """Reject voxel sides that no scanner or microscope produces.

    Args:
        path: The file, for messages.
        spacing: Voxel sides in mm.

    Raises:
        ReadError: If a side is NaN, shorter than 1e-3 mm or longer than 1e3 mm.
    """
    if not ((spacing >= _LEAST_SPACING_MM) & (spacing <= _LARGEST_SPACING_MM)).all():
        shown = " x ".join(f"{side:g}" for side in spacing)
        raise ReadError(
            path,
            f"its spacing is {shown} mm; {_LEAST_SPACING_MM:g} to {_LARGEST_SPACING_MM:g} is read",
        )

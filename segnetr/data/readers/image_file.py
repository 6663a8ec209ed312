"""What a file on disk becomes once every byte of it has been looked at."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray

from segnetr.errors import ReadError

DEFAULT_MAX_PIXELS = 200_000_000
"""Pixels of a image, or voxels of a volume, above which a file is refused unread."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")
VOLUME_SUFFIXES = NIFTI_SUFFIXES + NRRD_SUFFIXES + META_SUFFIXES
SUPPORTED_SUFFIXES = IMAGE_SUFFIXES + VOLUME_SUFFIXES

FileValue: TypeAlias = int | tuple[int, int, int]
"""A value of a mask file: a gray value, palette index or label, or a color (red, green, blue)."""

ClassValues: TypeAlias = tuple[tuple[FileValue, ...], ...]
"""For each class, background first, the values of a mask file that stand for it."""

_LEAST_SPACING_MM, _LARGEST_SPACING_MM = 1e-3, 1e3
_LEAST_DETERMINANT = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class TextHeader:
    """The header of an NRRD or MetaImage file as it was written.

    Attributes:
        form: The format.
        fields: Name, separator and text of each line in order; names and text as in the file.
        axes: Which axes of the file, fastest first, are X, Y and Z.
        is_packed: Whether the voxels are packed.
    """

    form: Literal["nrrd", "meta"]
    fields: tuple[tuple[str, str, str], ...]
    axes: tuple[int, int, int] = (0, 1, 2)
    is_packed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomSeries:
    """The slices of a DICOM series.

    Attributes:
        source: The folder, zip file or single file they are in.
        uid: Their SeriesInstanceUID.
        names: Names of the files in `source`, from the first slice along Z to the last.
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
        array: A image (H, W, C), C = 1 or 3, rows from the top; or a volume (X, Y, Z) in the
            order of the file, (X, Y, Z, C) where it has several channels, as modalities of MR.
            Unsigned 8 or 16 bit, or what else the file holds, native byte order.
        kind: What `array` is.
        affine: (4, 4) float64 from voxel indices to world coordinates (right, anterior, superior)
            in the file's unit; None: a image, or a volume that does not say where it lies.
        spacing: Voxel sides along X, Y, Z in mm; None: a image, or a volume without.
        header: The NIfTI header exactly as stored, for writing a mask with the same geometry.
        source_header: The same of an NRRD, MetaImage or DICOM volume.
        warnings: What was changed or ignored while reading, one line each, for people.
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
        """(H, W) of a image, (X, Y, Z) of a volume."""
        return self.array.shape[: 2 if self.kind == "image" else 3]

    @property
    def display_array(self) -> NDArray[Any]:
        """What people see of it: a image (H, W, C), or the first channel (X, Y, Z)."""
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
    """A file that is read without a issue, and whose values are no mask."""


class MaskSizeError(ReadError):
    """A mask that is read without a issue, on another grid than what belongs to it."""


def find_suffix(path: Path) -> str | None:
    """Give the suffix by which a file is read, in lower case, or None for a foreign one."""
    name = path.name.lower()
    return next((suffix for suffix in reversed(SUPPORTED_SUFFIXES) if name.endswith(suffix)), None)


def check_extent(path: Path, extent: tuple[int, ...], *, max_pixels: int) -> None:
    """Refuse an image by the size its header claims, before memory is taken for it.

    Args:
        path: The file, for the message.
        extent: Pixels or voxels along each axis.
        max_pixels: Most pixels or voxels in all.

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
    """Refuse an image with NaN or infinite values.

    Raises:
        ReadError: With the number of such values.
    """
    if not np.issubdtype(array.dtype, np.floating):
        return
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise ReadError(
            path, f"{bad} of {array.size} values are NaN or infinite; replace them in the file"
        )


def describe_os_error(error: OSError) -> str:
    """Give the system's reason in words, without the path that the message names anyway."""
    return error.strerror or str(error) or type(error).__name__


def check_affine(
    path: Path, affine: NDArray[np.float64], *, unit_mm: float = 1.0
) -> tuple[float, ...]:
    """Refuse an affine that maps no volume.

    Args:
        path: The file, for messages.
        affine: (4, 4), from voxel indices to lengths in the file's unit.
        unit_mm: That unit in mm.

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
    # On directions of length 1, so that fine spacing is not taken for a flat volume.
    if abs(np.linalg.det(affine[:3, :3] / sides)) < _LEAST_DETERMINANT:
        raise ReadError(path, "its affine has determinant 0: its axes do not span a volume")
    return tuple(float(side) for side in sides * unit_mm)


def check_spacing(path: Path, spacing: NDArray[np.float64]) -> None:
    """Refuse voxel sides that no scanner and no microscope makes.

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

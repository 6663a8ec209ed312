"""Can the geometry a volume claims be true? One rule for every format."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnetr.errors import ReadError

_LEAST_SPACING_MM, _LARGEST_SPACING_MM = 1e-3, 1e3
_LEAST_DETERMINANT = 1e-6


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

"""Draw a volume: a sheet of slices, and single slices for a slider."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.outputs.masks.overlay import arrange_tiles
from segnetr.outputs.reports.case_comparison import (
    FigureArray,
    add_legend,
    cut_plane,
    draw_pair,
    encode_jpeg,
)
from segnetr.outputs.reports.display_image import show_image

_MOST_SLICES = 16
_SLICE_SIDE = 320
_SHEET_SIDE = 760
_QUALITY = 80


def draw_slices(
    image: ImageFile | VolumeFile, *, prediction: NDArray[np.uint8], ground_truth: NDArray[np.uint8]
) -> tuple[bytes, tuple[bytes, ...]]:
    """Draw up to 16 slices of a volume with the outlines of ground truth and prediction.

    They are evenly selected from the first to the last slice with foreground in either mask.

    Args:
        image: A volume (X, Y, Z); of a volume on disk, only these slices are loaded.
        prediction: Class indices on its grid.
        ground_truth: As `prediction`.

    Returns:
        A sheet of all slices as a JPEG file, and a file for each slice, from the lowest.
    """
    tiles = []
    depths = _choose_depths(prediction, ground_truth)
    shown = show_image(image, depths)
    for depth in depths:
        plain, (found, true), size = cut_plane(
            shown, (prediction, ground_truth), depth=depth, longest=_SLICE_SIDE
        )
        resized = cv2.resize(plain, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8)
        tiles.append(draw_pair(resized, found, true, thin=True))
    return (
        encode_jpeg(add_legend(_draw_sheet(tiles)), quality=_QUALITY),
        tuple(encode_jpeg(tile, quality=_QUALITY) for tile in tiles),
    )


def _choose_depths(prediction: NDArray[np.uint8], ground_truth: NDArray[np.uint8]) -> list[int]:
    has_foreground = np.flatnonzero(prediction.any(axis=(0, 1)) | ground_truth.any(axis=(0, 1)))
    low, high = (
        (0, ground_truth.shape[2] - 1)
        if has_foreground.size == 0
        else (has_foreground[0], has_foreground[-1])
    )
    count = min(_MOST_SLICES, int(high - low) + 1)
    return sorted({int(depth) for depth in np.linspace(low, high, count).round()})


def _draw_sheet(tiles: list[FigureArray]) -> FigureArray:
    sheet = arrange_tiles(tiles, math.ceil(math.sqrt(len(tiles))))
    scale = min(1.0, _SHEET_SIDE / max(sheet.shape[:2]))
    size = (max(1, round(sheet.shape[1] * scale)), max(1, round(sheet.shape[0] * scale)))
    return np.asarray(cv2.resize(sheet, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)

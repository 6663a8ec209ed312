"""Draw the outlines of a mask over its image."""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segnetr.data.preprocessing.resize import resize_image
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.engine.inference.label_store import PageRelease, walk_planes

RGB = tuple[int, int, int]
ImageArray = NDArray[np.uint8]

# The first colors do not occur in skin, blood or pigment.
CLASS_COLORS: tuple[RGB, ...] = (
    (0, 255, 255),
    (255, 255, 0),
    (0, 255, 0),
    (255, 0, 255),
    (80, 160, 255),
    (255, 255, 255),
)
OVERLAY_SIDE = 1024
"""Larger images are reduced to this many pixels."""
OUTLINE_WIDTH = 2
"""Width of an outline in pixels of the overlay, without its dark rim of one pixel."""
_MOST_TILES = 16
_LARGEST_ZOOM = 4
_SAMPLE = 1_000_000  # number of values from which black and white are derived
_GRAY_SHARE = (1.0, 99.0)  # percentiles shown as black and white


def draw_overlay(
    image: ImageFile | VolumeFile,
    labels: NDArray[np.uint8],
    *,
    colors: Sequence[RGB] = CLASS_COLORS,
    longest: int = OVERLAY_SIDE,
) -> ImageArray:
    """Draw an image, or a sheet of up to 16 slices of a volume, with the outlines of a mask.

    The slices are evenly selected from those with foreground, or from all if there is none. The
    first axis of a slice points to the right, the second upwards.

    Args:
        image: The image.
        labels: Class indices on its grid.
        colors: Colors of the foreground classes in order, repeated as needed.
        longest: Longest side of the result in pixels.

    Returns:
        (h, w, 3), RGB.
    """
    if isinstance(image, ImageFile) and image.kind == "image":
        return outline_labels(to_display(image.array), labels, colors=colors, longest=longest)
    depths = choose_slices(labels)
    shown = _show_slices(image, depths)
    columns = math.ceil(math.sqrt(len(depths)))
    side = longest // columns
    tiles, release = [], PageRelease(labels)
    for depth, gray in zip(depths, shown, strict=True):
        pixels = np.rot90(gray)[..., None]
        size = _fit_tile(pixels.shape[:2], _pixel_shape(image), side)
        tile = resize_image(np.ascontiguousarray(pixels), size)
        mask = _resize_labels(np.ascontiguousarray(np.rot90(labels[:, :, depth])), size)
        release.release()
        tiles.append(outline_labels(tile, mask, colors=colors, longest=side))
    return arrange_tiles(tiles, columns)


def outline_labels(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    *,
    colors: Sequence[RGB] = CLASS_COLORS,
    longest: int = OVERLAY_SIDE,
) -> ImageArray:
    """Draw the outlines of a mask just inside its edges, with a dark rim around each.

    The rim makes outlines readable on light and dark skin. Nothing is smoothed: a pixel belongs
    to an outline or shows the image.

    Args:
        pixels: (H, W, 1) or (H, W, 3).
        labels: (H, W) class indices.
        colors: Colors of the foreground classes in order, repeated as needed.
        longest: Longest side of the result in pixels.

    Returns:
        (h, w, 3), RGB; larger images are reduced.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    reduced = resize_image(pixels, size)
    overlay = np.array(np.broadcast_to(reduced, (*size, 3)))
    masks = _resize_labels(labels, size)
    rings = [(int(label), _find_ring(masks == label)) for label in np.unique(masks) if label > 0]
    for _, (_, rim) in rings:
        overlay[rim] = 0
    for label, (line, _) in rings:
        overlay[line] = colors[(label - 1) % len(colors)]
    return overlay


def to_display(array: NDArray[Any]) -> ImageArray:
    """Scale gray values to 0..255; 8-bit values are unchanged.

    Other values are scaled so that their 1st and 99th percentiles become black and white.
    """
    if array.dtype == np.uint8:
        return array
    sample = array.reshape(-1)[:: max(1, array.size // _SAMPLE)]
    low, high = np.percentile(sample, _GRAY_SHARE)
    if high <= low:
        low, high = float(array.min()), float(array.max())
    return _stretch(array, low, high)


def _show_slices(image: ImageFile | VolumeFile, depths: Sequence[int]) -> list[ImageArray]:
    """Return slices (X, Y) of the first channel, with the gray scale of the whole volume."""
    if isinstance(image, ImageFile):
        gray = to_display(image.display_array)
        return [gray[:, :, depth] for depth in depths]
    step = max(1, math.prod(image.grid) // _SAMPLE)
    kept, sample = {}, []
    for depth, plane in enumerate(image.read_planes()):
        sample.append(plane[..., 0].ravel()[::step].copy())
        if depth in depths:
            kept[depth] = plane[..., 0].copy()
    if image.dtype == np.uint8:
        return [kept[depth] for depth in depths]
    low, high = np.percentile(np.concatenate(sample), _GRAY_SHARE)
    if high <= low:
        low = float(min(values.min() for values in sample))
        high = float(max(values.max() for values in sample))
    return [_stretch(kept[depth], low, high) for depth in depths]


def _stretch(array: NDArray[Any], low: float, high: float) -> ImageArray:
    scaled = (array.astype(np.float32) - np.float32(low)) * np.float32(255 / ((high - low) or 1.0))
    return np.asarray(np.clip(np.rint(scaled), 0, 255), dtype=np.uint8)


def choose_slices(labels: NDArray[np.uint8]) -> list[int]:
    """Select at most 16 slices of a volume (X, Y, Z), evenly from those with foreground."""
    full = np.flatnonzero([plane.any() for plane in walk_planes(labels)])
    if len(full) == 0:
        full = np.arange(labels.shape[2])
    positions = np.linspace(0, len(full) - 1, min(len(full), _MOST_TILES))
    return [int(full[round(position)]) for position in positions]


def _find_ring(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the pixels of the outline and of its rim. The image border counts as outside."""
    padded = np.pad(mask.astype(np.uint8), OUTLINE_WIDTH)
    square = np.ones((3, 3), dtype=np.uint8)
    inner = cv2.erode(padded, square, iterations=OUTLINE_WIDTH)
    core = cv2.erode(inner, square)
    outer = cv2.dilate(padded, square)
    cut = slice(OUTLINE_WIDTH, -OUTLINE_WIDTH)
    line = (padded > inner)[cut, cut]
    rim = ((outer > padded) | (inner > core))[cut, cut]
    return line, rim


def _resize_labels(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if labels.shape == size:
        return labels
    resized = cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(resized, dtype=np.uint8).reshape(size)


def _pixel_shape(image: ImageFile | VolumeFile) -> tuple[float, float]:
    """Return (height, width) of a voxel in a displayed slice, in units of the shorter side."""
    if image.spacing is None:
        return 1.0, 1.0
    across, up = image.spacing[0], image.spacing[1]
    return up / min(across, up), across / min(across, up)


def _fit_tile(
    grid: tuple[int, ...], pixel_shape: tuple[float, float], side: int
) -> tuple[int, int]:
    """Return the size of a displayed slice: true proportions, at most `side`, at most 4 times."""
    height, width = grid[0] * pixel_shape[0], grid[1] * pixel_shape[1]
    scale = min(_LARGEST_ZOOM, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def arrange_tiles(tiles: Sequence[ImageArray], columns: int) -> ImageArray:
    """Return a sheet of tiles of one size, row by row; empty cells are black."""
    height, width = tiles[0].shape[:2]
    rows = math.ceil(len(tiles) / columns)
    sheet = np.zeros((rows * height, columns * width, 3), dtype=np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = tile
    return sheet

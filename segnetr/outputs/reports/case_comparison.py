"""Draw cases with the outlines of ground truth and prediction.

The ground truth is a thick bluish-green line, the prediction a thin orange line on top of it, each
with a dark rim. Hue, lightness and width all differ, so color-blind readers can distinguish them,
on paper and on any skin. Where the lines agree, the orange line has a green border.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.outputs.reports.display_image import DisplayImage, show_image

FigureArray = NDArray[np.uint8]

GROUND_TRUTH_COLOR = (64, 224, 176)
PREDICTION_COLOR = (255, 150, 20)
FIGURE_SIDE = 512
"""Longest side of one panel in pixels."""

_RIM = (20, 20, 20)
_GROUND_TRUTH_WIDTH, _PREDICTION_WIDTH, _RIM_WIDTH = 5, 3, 1
_GAP, _LEGEND_HEIGHT, _PAPER = 8, 36, 255
_GRAY_SHARE = (1.0, 99.0)  # percentiles shown as black and white
_JPEG_QUALITY = 88


def compare_case(
    image: ImageFile | VolumeFile, *, prediction: NDArray[np.uint8], ground_truth: NDArray[np.uint8]
) -> bytes:
    """Draw an image, and next to it the image with the outlines of ground truth and prediction.

    For a volume, the slice with the largest area of the ground truth is shown (of the prediction
    if the ground truth is empty) in true proportions, with the first axis to the right and the
    second upwards.

    Args:
        image: The image.
        prediction: Class indices on its grid; the outlines of all classes are drawn.
        ground_truth: As `prediction`.

    Returns:
        A JPEG file with full color resolution and a legend below the images.
    """
    depth = 0 if image.kind == "image" else _choose_slice(prediction, ground_truth)
    shown = show_image(image, [depth])
    plain, (found, true), size = cut_plane(shown, (prediction, ground_truth), depth=depth)
    plain = _resize(plain, size)
    return encode_jpeg(add_legend(_side_by_side([plain, draw_pair(plain, found, true)])))


def compare_predictions(
    image: ImageFile | VolumeFile,
    *,
    predictions: Mapping[str, NDArray[np.uint8]],
    ground_truth: NDArray[np.uint8],
) -> bytes:
    """Draw an image once per prediction, with the outlines of the prediction and the ground truth.

    For a volume, the slice with the largest difference between the predictions is shown.

    Args:
        image: The image.
        predictions: Class indices on its grid, by the name to write above the image.
        ground_truth: Class indices on its grid.

    Returns:
        A JPEG file with a legend below the images.
    """
    masks = list(predictions.values())
    depth = 0 if image.kind == "image" else _choose_disagreement(masks, ground_truth)
    shown = show_image(image, [depth])
    plain, (*found, true), size = cut_plane(shown, (*masks, ground_truth), depth=depth)
    plain = _resize(plain, size)
    panels = [
        _add_name(draw_pair(plain, mask, true), name)
        for name, mask in zip(predictions, found, strict=True)
    ]
    return encode_jpeg(add_legend(_side_by_side(panels)))


def draw_pair(
    plain: FigureArray,
    prediction: NDArray[np.uint8],
    ground_truth: NDArray[np.uint8],
    *,
    thin: bool = False,
) -> FigureArray:
    """Return a copy of an image (h, w, 3) with the outlines of all classes of two masks.

    Args:
        plain: The image in its final size.
        prediction: (H, W) class indices.
        ground_truth: As `prediction`.
        thin: For small images.
    """
    drawing = plain.copy()
    finer = 1 if thin else 0
    draw_outlines(
        drawing, ground_truth, color=GROUND_TRUTH_COLOR, width=_GROUND_TRUTH_WIDTH - finer
    )
    draw_outlines(drawing, prediction, color=PREDICTION_COLOR, width=_PREDICTION_WIDTH - finer)
    return drawing


def cut_plane(
    image: DisplayImage,
    masks: Sequence[NDArray[np.uint8]],
    *,
    depth: int,
    longest: int = FIGURE_SIDE,
) -> tuple[FigureArray, list[NDArray[np.uint8]], tuple[int, int]]:
    """Return the pixels and masks of an image, or of one slice of a volume.

    Args:
        image: An image, or a volume with this slice.
        masks: Class indices on the grid of the whole image.
        depth: The slice along Z; not used for an image.
        longest: Longest side of the figure in pixels.

    Returns:
        The image (H, W, 3), the masks (H, W), and the (width, height) of the figure in true
        proportions. A slice has the first axis to the right and the second upwards.
    """
    if image.kind == "image":
        pixels = image.planes[0]
        pixels = np.broadcast_to(_as_gray(pixels, image.sample), (*pixels.shape[:2], 3))
        shape: tuple[float, float] = (float(pixels.shape[0]), float(pixels.shape[1]))
        planes = list(masks)
    else:
        stored = (image.planes[depth], *(mask[:, :, depth] for mask in masks))
        gray, *planes = (np.ascontiguousarray(np.rot90(plane)) for plane in stored)
        side_x, side_y = image.spacing
        pixels = np.repeat(_as_gray(gray, image.sample)[..., None], 3, axis=2)
        shape = (gray.shape[0] * side_y, gray.shape[1] * side_x)
    scale = longest / max(shape)
    size = (max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale)))
    return np.ascontiguousarray(pixels), planes, size


def _choose_disagreement(
    predictions: Sequence[NDArray[np.uint8]], ground_truth: NDArray[np.uint8]
) -> int:
    first, *others = predictions
    differing = sum((np.count_nonzero(mask != first, axis=(0, 1)) for mask in others), np.zeros(1))
    return int(np.argmax(differing)) if np.any(differing) else _choose_slice(first, ground_truth)


def _choose_slice(prediction: NDArray[np.uint8], ground_truth: NDArray[np.uint8]) -> int:
    for mask in (ground_truth, prediction):
        areas = np.count_nonzero(mask, axis=(0, 1))
        if areas.any():
            return int(np.argmax(areas))
    depth: int = ground_truth.shape[2] // 2
    return depth


def _as_gray(array: NDArray[Any], sample: NDArray[Any]) -> FigureArray:
    """Scale values to 0..255 between percentiles; 8-bit values are unchanged."""
    if array.dtype == np.uint8:
        return array
    low, high = np.percentile(sample, _GRAY_SHARE)
    stretched = (array.astype(np.float64) - low) * (255 / max(high - low, 1e-12))
    clipped: FigureArray = np.clip(stretched, 0, 255).astype(np.uint8)
    return clipped


def _resize(pixels: FigureArray, size: tuple[int, int]) -> FigureArray:
    interpolation = cv2.INTER_AREA if size[0] < pixels.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, size, interpolation=interpolation), dtype=np.uint8)


def draw_outlines(
    pixels: FigureArray, mask: NDArray[np.uint8], *, color: tuple[int, int, int], width: int
) -> None:
    """Draw the outlines of all classes of a mask into an image, with a dark rim."""
    height, columns = pixels.shape[:2]
    lines: list[NDArray[np.int32]] = []
    interpolation = cv2.INTER_AREA if mask.shape[0] > height else cv2.INTER_LINEAR
    for index in np.unique(mask[mask > 0]):
        share = cv2.resize(
            (mask == index).astype(np.float32), (columns, height), interpolation=interpolation
        )
        # With a threshold of one half, structures thinner than a pixel would disappear.
        inside = (share >= min(0.5, float(share.max()))).astype(np.uint8)
        lines += cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
    for thickness, ink in ((width + 2 * _RIM_WIDTH, _RIM), (width, color)):
        cv2.polylines(pixels, lines, True, ink, thickness=thickness, lineType=cv2.LINE_AA)


def _side_by_side(panels: Sequence[FigureArray]) -> FigureArray:
    gap = np.full((panels[0].shape[0], _GAP, 3), _PAPER, dtype=np.uint8)
    columns = [array for panel in panels for array in (gap, panel)]
    return np.concatenate(columns[1:], axis=1)


def _add_name(pixels: FigureArray, name: str) -> FigureArray:
    """Write a name above an image, shortened to the width of the image."""
    font = ImageFont.load_default(size=19)
    width = pixels.shape[1]
    while len(name) > 1 and font.getlength(name) > width - 8:
        name = name.rstrip("…")[:-1] + "…"
    bar = Image.new("RGB", (width, _LEGEND_HEIGHT), (_PAPER,) * 3)
    ImageDraw.Draw(bar).text((4, _LEGEND_HEIGHT // 2), name, fill=_RIM, font=font, anchor="lm")
    return np.concatenate([np.asarray(bar, dtype=np.uint8), pixels])


def add_legend(pixels: FigureArray) -> FigureArray:
    """Add a legend of the outlines below an image."""
    font = ImageFont.load_default(size=21)
    entries = (("ground truth", GROUND_TRUTH_COLOR, _GROUND_TRUTH_WIDTH),
               ("prediction", PREDICTION_COLOR, _PREDICTION_WIDTH))  # fmt: skip
    length = sum(int(font.getlength(text)) + 52 for text, _, _ in entries)
    missing = max(0, length - pixels.shape[1])
    pixels = np.pad(pixels, ((0, 0), (missing, 0), (0, 0)), constant_values=_PAPER)
    bar = Image.new("RGB", (pixels.shape[1], _LEGEND_HEIGHT), (_PAPER,) * 3)
    draw = ImageDraw.Draw(bar)
    middle = _LEGEND_HEIGHT // 2 + 2
    # The legend ends where the panel with outlines ends.
    left = float(pixels.shape[1] - length + 16)
    for text, color, width in entries:
        draw.line((left, middle, left + 28, middle), fill=_RIM, width=width + 2)
        draw.line((left + 1, middle, left + 27, middle), fill=color, width=width)
        draw.text((left + 34, middle), text, fill=_RIM, font=font, anchor="lm")
        left += font.getlength(text) + 52
    return np.concatenate([pixels, np.asarray(bar, dtype=np.uint8)])


def encode_jpeg(pixels: FigureArray, *, quality: int = _JPEG_QUALITY) -> bytes:
    """Return an image (h, w, 3) as a JPEG file with full color resolution."""
    file = io.BytesIO()
    # Chroma subsampling would blur thin colored lines.
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    return file.getvalue()

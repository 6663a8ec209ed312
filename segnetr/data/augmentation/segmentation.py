"""Augmentation of images and masks for segmentation, as one albumentations pipeline."""

import math
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.classification_recipe import ClassificationAugmentConfig
from segnetr.config.schema.segmentation import AugmentConfig
from segnetr.data.augmentation.artifacts import PenStrokes, Stickers, UnevenLight, Vignette
from segnetr.data.augmentation.pipeline import A, Pipeline
from segnetr.data.preprocessing.resize import (
    Array,
    cut_soft_mask,
    is_binary,
    resize_image,
    resize_mask,
    soften_mask,
)

# At the input size of the network: in pixels for the blur, as a share of the range for the noise.
_BLUR_SIGMA = (0.3, 1.2)
_NOISE_DEVIATION = (0.01, 0.04)
# Shares of the image's shorter side. The displacement is uniform noise blurred with sigma and
# multiplied by alpha. Blurring reduces the standard deviation to about 0.16 / sigma, so a point
# moves by about 0.02 of the side.
_ELASTIC_SIGMA = 0.04
_ELASTIC_ALPHA = 1.0
_MAX_CV2_CHANNELS = 4
_DROPOUT_HOLES = (1, 4)
_DROPOUT_SIDE = (0.05, 0.2)


class WarpToSize(A.DualTransform):  # type: ignore[misc]
    """Rotate, scale, shift, resize and flip, in one interpolation.

    Rotation, scaling and shift happen at the image's own aspect ratio, around its center. The image
    is then resized to the size, as for prediction, and flipped there: left-right, up-down and along
    the diagonal, each with probability 1/2. This gives all eight flips and 90 degree rotations with
    equal probability and without borders. Without rotation, scaling and shift, the result is the
    plain resizing of prediction.

    Pixels outside the image are filled by reflection, in image and mask, so that a lesion cut by
    the border continues with its mask; or with black and background, like the dark corners of a
    dermoscope; or with one of the two, chosen at random for each image.

    Args:
        size: (height, width) of the result in pixels.
        flip: Whether to flip at random.
        degrees: Largest rotation to either side.
        zoom: Smallest and largest scale, drawn log-uniformly.
        shift: Largest shift to either side, as a share of the image's side.
        stretch: Largest relative change of the aspect ratio, half of it on each axis.
        border: Fill of pixels outside the image.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        flip: bool,
        degrees: float,
        zoom: tuple[float, float],
        shift: float,
        stretch: float = 0.0,
        border: Literal["reflect", "black", "either"] = "reflect",
    ) -> None:
        super().__init__(p=1.0)
        self.size = size
        self.flip = flip
        self.degrees = degrees
        self.zoom = zoom
        self.shift = shift
        self.stretch = stretch
        self.border = border

    def get_params_dependent_on_data(
        self,
        params: dict[str, Any],
        data: dict[str, Any],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Draw the random parameters."""
        draw = self.py_random.uniform
        degrees = draw(-self.degrees, self.degrees)
        zoom = math.exp(draw(math.log(self.zoom[0]), math.log(self.zoom[1])))
        shift = draw(-self.shift, self.shift), draw(-self.shift, self.shift)
        diagonal, across, down = (self.flip and draw(0, 1) < 0.5 for _ in range(3))
        upright = self.size[::-1] if diagonal else self.size
        # Drawn last and only if used, so that the random numbers of other settings do not change.
        stretch = math.exp(draw(-self.stretch, self.stretch) / 2) if self.stretch else 1.0
        is_black = self.border == "black" or (self.border == "either" and draw(0, 1) < 0.5)
        is_identity = degrees == 0 and zoom == stretch == 1 and shift == (0, 0)
        matrix = _build_matrix(
            params["shape"][:2],
            upright,
            degrees,
            zoom=(zoom * stretch, zoom / stretch),
            shift=shift,
        )
        return {
            "matrix": None if is_identity else matrix,
            "upright": upright,
            "outside": cv2.BORDER_CONSTANT if is_black else cv2.BORDER_REFLECT_101,
            "mirrors": (diagonal, across, down),
        }

    def apply(
        self,
        img: Array,
        matrix: NDArray[np.float64] | None,
        upright: tuple[int, int],
        outside: int,
        mirrors: tuple[bool, bool, bool],
        **_: Any,
    ) -> Array:
        """Transform an image (H, W, C)."""
        if matrix is None:
            return _mirror(resize_image(img, upright), *mirrors)
        return _mirror(_warp(img, matrix, upright, outside), *mirrors)

    def apply_to_mask(
        self,
        mask: Array,
        matrix: NDArray[np.float64] | None,
        upright: tuple[int, int],
        outside: int,
        mirrors: tuple[bool, bool, bool],
        **_: Any,
    ) -> Array:
        """Transform a mask (H, W). Binary masks are thresholded at one half, others use nearest."""
        if matrix is None:
            return _mirror(resize_mask(mask, upright), *mirrors)
        if is_binary(mask):
            soft = _warp(soften_mask(mask), matrix, upright, outside)
            return _mirror(cut_soft_mask(soft), *mirrors)
        moved = _warp_affine(mask, matrix, upright, cv2.INTER_NEAREST, outside)
        return _mirror(moved, *mirrors)


def build_augmentation(
    config: AugmentConfig, *, image_size: tuple[int, int], channels: int
) -> Pipeline:
    """Build the pipeline, which returns augmented images and masks of `image_size`.

    Args:
        config: The augmentation. Disabled steps are not part of the pipeline.
        image_size: (height, width) of the result in pixels.
        channels: Channels of the images. Saturation and hue need 3.

    Returns:
        A pipeline for `image` (H, W, C), uint8 or float32 in 0..1, and `mask` (H, W) uint8.
    """
    shorter = min(image_size)
    steps: list[A.BasicTransform] = [
        WarpToSize(
            image_size,
            flip=config.flip,
            degrees=config.rotate_degrees,
            zoom=config.scale,
            shift=config.shift,
            stretch=config.stretch,
            border=config.border,
        )
    ]
    if config.elastic:
        steps.append(
            A.ElasticTransform(
                alpha=_ELASTIC_ALPHA * shorter,
                sigma=_ELASTIC_SIGMA * shorter,
                border_mode=cv2.BORDER_REFLECT_101,
                p=config.elastic,
            )
        )
    steps += build_color_steps(config, channels)
    if config.gamma:
        limits = tuple(100 * math.exp(sign * config.gamma) for sign in (-1, 1))
        steps.append(A.RandomGamma(gamma_limit=limits, p=1.0))
    if config.cast or config.uneven_light:
        steps.append(UnevenLight(cast=config.cast, strength=config.uneven_light))
    if config.blur:
        steps.append(A.GaussianBlur(blur_limit=0, sigma_limit=_BLUR_SIGMA, p=config.blur))
    if config.noise:
        steps.append(A.GaussNoise(std_range=_NOISE_DEVIATION, p=config.noise))
    if config.dropout:
        steps.append(
            A.CoarseDropout(
                num_holes_range=_DROPOUT_HOLES,
                hole_height_range=_DROPOUT_SIDE,
                hole_width_range=_DROPOUT_SIDE,
                fill=0,
                p=config.dropout,
            )
        )
    if config.stickers:
        steps.append(Stickers(p=config.stickers))
    if config.pen_strokes:
        steps.append(PenStrokes(p=config.pen_strokes))
    if config.vignette:
        steps.append(Vignette(p=config.vignette))
    return Pipeline(steps)


def build_color_steps(
    config: AugmentConfig | ClassificationAugmentConfig, channels: int
) -> list[A.BasicTransform]:
    """Build the steps for brightness, contrast, saturation and hue. Empty if all are 0."""
    if channels == 3 and (config.brightness or config.contrast or config.saturation or config.hue):
        return [
            A.ColorJitter(
                brightness=(1 - config.brightness, 1 + config.brightness),
                contrast=(1 - config.contrast, 1 + config.contrast),
                saturation=(1 - config.saturation, 1 + config.saturation),
                hue=(-config.hue, config.hue),
                p=1.0,
            )
        ]
    if config.brightness or config.contrast:
        # Relative to the image's mean, as for color images.
        return [
            A.RandomBrightnessContrast(
                brightness_limit=(-config.brightness, config.brightness),
                contrast_limit=(-config.contrast, config.contrast),
                brightness_by_max=False,
                p=1.0,
            )
        ]
    return []


def _build_matrix(
    source: tuple[int, int],
    target: tuple[int, int],
    degrees: float,
    *,
    zoom: tuple[float, float],
    shift: tuple[float, float],
) -> NDArray[np.float64]:
    """Build the 3 x 3 matrix from source pixels (x, y, 1) to target pixels."""
    (height, width), (new_height, new_width) = source, target
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # Pixel i covers i..i+1. Without the half pixel, resizing would shift the image.
    to_center = np.array([[1, 0, 0.5 - width / 2], [0, 1, 0.5 - height / 2], [0, 0, 1]])
    rotate = np.array(
        [
            [zoom[0] * cosine, -zoom[1] * sine, shift[0] * width],
            [zoom[0] * sine, zoom[1] * cosine, shift[1] * height],
            [0, 0, 1],
        ]
    )
    resize = np.diag([new_width / width, new_height / height, 1.0])
    from_center = np.array([[1, 0, new_width / 2 - 0.5], [0, 1, new_height / 2 - 0.5], [0, 0, 1]])
    return np.asarray(from_center @ resize @ rotate @ to_center)


def _warp(image: Array, matrix: NDArray[np.float64], size: tuple[int, int], border: int) -> Array:
    """Warp an image (H, W, C), after averaging if it shrinks to less than a half."""
    height, width = image.shape[:2]
    # A linear warp reads four neighbors, so it would skip pixels.
    across = max(1, int(1 / np.linalg.norm(matrix[:2, 0])))
    down = max(1, int(1 / np.linalg.norm(matrix[:2, 1])))
    if across > 1 or down > 1:
        image = resize_image(image, (max(1, height // down), max(1, width // across)))
        y, x = height / image.shape[0], width / image.shape[1]
        matrix = matrix @ np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5], [0, 0, 1]])
    warped = _warp_affine(image, matrix, size, cv2.INTER_LINEAR, border)
    return warped.reshape(*size, image.shape[2])  # OpenCV drops an axis of length 1


def _warp_affine(
    image: Array,
    matrix: NDArray[np.float64],
    size: tuple[int, int],
    interpolation: int,
    border: int,
) -> Array:
    def warp(channels: Array) -> Array:
        return np.asarray(
            cv2.warpAffine(
                channels,
                matrix[:2],
                (size[1], size[0]),
                flags=interpolation,
                borderMode=border,
            )
        )

    if image.ndim == 2 or image.shape[2] <= _MAX_CV2_CHANNELS:
        return warp(image)
    # OpenCV supports at most four channels. Slices with neighbors have more.
    starts = range(0, image.shape[2], _MAX_CV2_CHANNELS)
    warped = [warp(image[..., start : start + _MAX_CV2_CHANNELS]) for start in starts]
    return np.concatenate([chunk.reshape(*size, -1) for chunk in warped], axis=2)


def _mirror(array: Array, diagonal: bool, across: bool, down: bool) -> Array:
    if diagonal:
        array = array.swapaxes(0, 1)
    if across:
        array = array[:, ::-1]
    if down:
        array = array[::-1]
    return np.ascontiguousarray(array)

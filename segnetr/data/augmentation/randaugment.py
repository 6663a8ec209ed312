"""The operations of RandAugment on images (H, W, C), uint8 or float32 in 0..1.

Cubuk et al., RandAugment: Practical automated data augmentation with a reduced search space,
arXiv:1909.13719, section 3. The ranges are those of AutoAugment, arXiv:1805.09501, table 6.
Strengths are -1 to 1. Operations without a direction use the absolute value. At strength 0, no
operation changes the image, except the two that have no strength.
"""

import math
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from segnetr.data.preprocessing.resize import Array

Operation = Callable[[Array, float], Array]

_GRAY = 0.5  # Fill of pixels outside the image, as a share of the range.
_MAX_DEGREES = 30.0
_MAX_SHEAR = 0.3
_MAX_SHIFT = 150 / 331  # Share of the side: 150 pixels of the paper's 331.
_MAX_BLEND = 0.9
_MIN_BITS = 4
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13


def find_operations(channels: int) -> Mapping[str, Operation]:
    """Return the operations by name for images with a number of channels."""
    if channels == 3:
        return _OPERATIONS
    return {name: apply for name, apply in _OPERATIONS.items() if name != "color"}


def keep_unchanged(image: Array, strength: float) -> Array:  # noqa: ARG001
    """Return the image unchanged."""
    return image


def stretch_contrast(image: Array, strength: float) -> Array:  # noqa: ARG001
    """Stretch each channel to the full range."""
    values = image.astype(np.float32)
    low, high = values.min((0, 1)), values.max((0, 1))
    span = np.where(high > low, high - low, 1)
    stretched = (values - low) / span * _highest(image)
    return _like(np.where(high > low, stretched, values), image)


def equalize(image: Array, strength: float) -> Array:  # noqa: ARG001
    """Equalize the histogram of each channel, with 256 levels."""
    levels = _to_bytes(image)
    planes = [
        cv2.equalizeHist(np.ascontiguousarray(levels[..., k])) for k in range(levels.shape[2])
    ]
    return _from_bytes(np.stack(planes, axis=2), image)


def posterize(image: Array, strength: float) -> Array:
    """Reduce to 8 bits at strength 0, down to 4 at strength 1."""
    bits = 8 - round((8 - _MIN_BITS) * abs(strength))
    if bits == 8:
        return image
    return _from_bytes(_to_bytes(image) & np.uint8(256 - (1 << (8 - bits))), image)


def solarize(image: Array, strength: float) -> Array:
    """Invert values above a threshold, which falls from the highest value to 0."""
    highest = _highest(image)
    # One level above the highest at strength 0, which inverts nothing; 0 at strength 1.
    threshold = highest * 256 / 255 * (1 - abs(strength))
    return np.where(image >= threshold, image.dtype.type(highest) - image, image)


def change_color(image: Array, strength: float) -> Array:
    """Change the saturation, of (H, W, 3) images only."""
    gray = (image.astype(np.float32) @ _LUMA)[..., None]
    return _blend(gray, image, strength)


def change_contrast(image: Array, strength: float) -> Array:
    """Change the contrast, relative to the mean gray value."""
    values = image.astype(np.float32)
    gray = values @ _LUMA if image.shape[2] == 3 else values
    return _blend(gray.mean(), image, strength)


def change_brightness(image: Array, strength: float) -> Array:
    """Change the brightness."""
    return _blend(np.float32(0), image, strength)


def change_sharpness(image: Array, strength: float) -> Array:
    """Change the sharpness, relative to a smoothed image. The border is not changed."""
    values = image.astype(np.float32)
    smooth = values.copy()
    filtered = cv2.filter2D(values, -1, _SMOOTH).reshape(values.shape)
    smooth[1:-1, 1:-1] = filtered[1:-1, 1:-1]
    return _blend(smooth, image, strength)


def rotate(image: Array, strength: float) -> Array:
    """Rotate around the center by up to 30 degrees."""
    angle = math.radians(_MAX_DEGREES * strength)
    cosine, sine = math.cos(angle), math.sin(angle)
    return _move(image, np.array([[cosine, sine], [-sine, cosine]]), (0.0, 0.0))


def shear_across(image: Array, strength: float) -> Array:
    """Shear along the horizontal axis by up to 0.3."""
    return _move(image, np.array([[1, _MAX_SHEAR * strength], [0, 1]]), (0.0, 0.0))


def shear_down(image: Array, strength: float) -> Array:
    """Shear along the vertical axis by up to 0.3."""
    return _move(image, np.array([[1, 0], [_MAX_SHEAR * strength, 1]]), (0.0, 0.0))


def shift_across(image: Array, strength: float) -> Array:
    """Shift along the horizontal axis by up to 0.45 of the width."""
    return _move(image, np.eye(2), (_MAX_SHIFT * strength * image.shape[1], 0.0))


def shift_down(image: Array, strength: float) -> Array:
    """Shift along the vertical axis by up to 0.45 of the height."""
    return _move(image, np.eye(2), (0.0, _MAX_SHIFT * strength * image.shape[0]))


_OPERATIONS: Mapping[str, Operation] = {
    "identity": keep_unchanged,
    "auto_contrast": stretch_contrast,
    "equalize": equalize,
    "rotate": rotate,
    "solarize": solarize,
    "color": change_color,
    "posterize": posterize,
    "contrast": change_contrast,
    "brightness": change_brightness,
    "sharpness": change_sharpness,
    "shear_across": shear_across,
    "shear_down": shear_down,
    "shift_across": shift_across,
    "shift_down": shift_down,
}


def _blend(other: NDArray[np.float32] | np.float32, image: Array, strength: float) -> Array:
    """Blend `other` (factor 0) with the image (factor 1). The factor is 0.1 to 1.9."""
    factor = np.float32(1 + _MAX_BLEND * strength)
    return _like(other + (image.astype(np.float32) - other) * factor, image)


def _move(image: Array, matrix: NDArray[np.float64], shift: tuple[float, float]) -> Array:
    """Transform by a matrix on (x, y) around the center and a shift, with linear interpolation."""
    height, width, channels = image.shape
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = center - matrix @ center + np.array(shift)
    gray = _GRAY * _highest(image)
    moved = cv2.warpAffine(
        np.ascontiguousarray(image),
        np.hstack([matrix, offset[:, None]]),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=[gray] * 4,
    )
    return np.asarray(moved).reshape(height, width, channels)  # OpenCV drops an axis of length 1


def _highest(image: Array) -> float:
    return 255.0 if image.dtype == np.uint8 else 1.0


def _like(values: NDArray[np.float32], image: Array) -> Array:
    if image.dtype == np.uint8:
        return np.rint(values).clip(0, 255).astype(np.uint8)
    return values.clip(0, 1).astype(image.dtype)


def _to_bytes(image: Array) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return image
    levels: NDArray[np.uint8] = np.rint(image * 255).clip(0, 255).astype(np.uint8)
    return levels


def _from_bytes(levels: NDArray[np.uint8], image: Array) -> Array:
    return levels if image.dtype == np.uint8 else levels.astype(image.dtype) / image.dtype.type(255)

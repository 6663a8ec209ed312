"""Image artifacts that albumentations does not have: light, stickers, ink, vignettes.

None of them changes the mask. They teach the network to ignore smooth changes of color, colored
stickers and pen marks.
"""

from abc import abstractmethod
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segnetr.data.augmentation.pipeline import A
from segnetr.data.preprocessing.resize import Array

# Points per side of the coarse random grid of the uneven light.
_GRID = (2, 6)
# Shares of the shorter side: distance of a sticker from the image center, and its half axes.
_STICKER_DISTANCE = (0.35, 0.75)
_STICKER_AXES = (0.08, 0.33)
_STICKER_COUNT = (1, 3)
_STICKER_COVER = (0.7, 1.0)
# A pen stroke: number of corners, distance between them and largest thickness (shares of the
# shorter side), hue from blue to purple in degrees, saturation, value.
_STROKE_COUNT = (1, 3)
_STROKE_CORNERS = (3, 7)
_STROKE_STEP = 0.1
_STROKE_THICKNESS = 0.07
_STROKE_COLOR = ((200, 320), (0.2, 0.8), (0.15, 0.7))
_STROKE_COVER = (0.4, 1.0)
_SUBPIXEL_BITS = 3
# A vignette, in shares of the image's sides: distance from the image center, radius, width of the
# soft edge; the largest logarithm of the ratio of its axes; the remaining light outside.
_VIGNETTE_SHIFT = 0.08
_VIGNETTE_RADIUS = (0.42, 0.68)
_VIGNETTE_EDGE = (0.01, 0.15)
_VIGNETTE_STRETCH = 0.2
_VIGNETTE_LIGHT = (0.0, 0.25)


class UnevenLight(A.ImageOnlyTransform):  # type: ignore[misc]
    """Multiply an image by a gain per color and by a smooth random field.

    Args:
        cast: Largest logarithm of the gain of a color, which is constant over the image.
        strength: Largest standard deviation of the logarithm of the field, which is normally
            distributed on a coarse grid of 2 to 6 points per side and interpolated. The field is
            partly shared by all colors.
    """

    def __init__(self, *, cast: float, strength: float) -> None:
        super().__init__(p=1.0)
        self.cast = cast
        self.strength = strength

    def get_params_dependent_on_data(
        self,
        params: dict[str, Any],  # noqa: ARG002
        data: dict[str, Any],
    ) -> dict[str, Any]:
        """Draw the gains."""
        height, width, channels = data["image"].shape
        draw = self.random_generator
        logarithm = np.zeros((height, width, channels), np.float32)
        if self.cast:
            logarithm += draw.uniform(-self.cast, self.cast, channels).astype(np.float32)
        if self.strength:
            points = int(draw.integers(_GRID[0], _GRID[1], endpoint=True))
            coarse = draw.normal(size=(points, points)).astype(np.float32)
            field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            share = draw.normal() + 0.5 * draw.normal(size=channels)
            strength = self.strength * draw.uniform()
            logarithm += (strength * field[..., None] * share).astype(np.float32)
        return {"gain": np.exp(logarithm)}

    def apply(self, img: Array, gain: NDArray[np.float32], **_: Any) -> Array:
        """Apply the gains to an image (H, W, C)."""
        return _from_unit_range(img, _to_unit_range(img) * gain)


class _Overlay(A.ImageOnlyTransform):  # type: ignore[misc]
    """Draw one to three shapes of one color each on an image."""

    count: tuple[int, int]

    def get_params_dependent_on_data(
        self,
        params: dict[str, Any],  # noqa: ARG002
        data: dict[str, Any],
    ) -> dict[str, Any]:
        """Draw the opacity (H, W, 1) and color (C) of each shape."""
        height, width, channels = data["image"].shape
        count = int(self.random_generator.integers(*self.count, endpoint=True))
        return {
            "shapes": [
                (self._draw_cover(height, width), self._draw_color(channels)) for _ in range(count)
            ]
        }

    def apply(
        self, img: Array, shapes: list[tuple[NDArray[np.float32], NDArray[np.float32]]], **_: Any
    ) -> Array:
        """Draw the shapes on an image (H, W, C)."""
        values = _to_unit_range(img)
        for cover, color in shapes:
            values = values + cover * (color - values)
        return _from_unit_range(img, values)

    @abstractmethod
    def _draw_cover(self, height: int, width: int) -> NDArray[np.float32]:
        """Draw the opacity of a shape, (H, W, 1) in 0..1."""

    @abstractmethod
    def _draw_color(self, channels: int) -> NDArray[np.float32]:
        """Draw the shape's color, (C) in 0..1."""


class Stickers(_Overlay):
    """Draw one to three ellipses of one saturated color each near the border of an image.

    Args:
        p: Probability that an image gets any.
    """

    count = _STICKER_COUNT

    def __init__(self, *, p: float) -> None:
        super().__init__(p=p)

    def _draw_cover(self, height: int, width: int) -> NDArray[np.float32]:
        draw, shorter = self.random_generator, min(height, width)
        angle, far = draw.uniform(0, 2 * np.pi), draw.uniform(*_STICKER_DISTANCE) * shorter
        center = (int(width / 2 + far * np.cos(angle)), int(height / 2 + far * np.sin(angle)))
        half = [max(1, int(axis * shorter)) for axis in draw.uniform(*_STICKER_AXES, 2)]
        cover = np.zeros((height, width), np.float32)
        turn = float(draw.uniform(0, 180))
        cv2.ellipse(cover, center, half, turn, 0, 360, 1.0, -1, cv2.LINE_AA)
        cover *= draw.uniform(*_STICKER_COVER)
        return cover[..., None]

    def _draw_color(self, channels: int) -> NDArray[np.float32]:
        return _draw_color(self.random_generator, channels, (0, 360), (0.2, 1), (0.2, 1))


class PenStrokes(_Overlay):
    """Draw one to three polylines of a blue or purple pen anywhere on an image.

    Args:
        p: Probability that an image gets any.
    """

    count = _STROKE_COUNT

    def __init__(self, *, p: float) -> None:
        super().__init__(p=p)

    def _draw_cover(self, height: int, width: int) -> NDArray[np.float32]:
        draw, shorter = self.random_generator, min(height, width)
        corners = int(draw.integers(*_STROKE_CORNERS, endpoint=True))
        steps = draw.normal(0, _STROKE_STEP * shorter, (corners, 2))
        steps[0] = draw.uniform(0, (width, height))
        points = np.rint(np.cumsum(steps, axis=0) * 2**_SUBPIXEL_BITS).astype(np.int32)
        thickness = int(draw.integers(1, max(1, int(_STROKE_THICKNESS * shorter)), endpoint=True))
        cover = np.zeros((height, width), np.float32)
        cv2.polylines(cover, [points], False, 1.0, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        cover *= draw.uniform(*_STROKE_COVER)
        return cover[..., None]

    def _draw_color(self, channels: int) -> NDArray[np.float32]:
        return _draw_color(self.random_generator, channels, *_STROKE_COLOR)


class Vignette(A.ImageOnlyTransform):  # type: ignore[misc]
    """Darken an image outside an ellipse near its center, as a dermoscope does.

    Args:
        p: Probability that an image is darkened.
    """

    def __init__(self, *, p: float) -> None:
        super().__init__(p=p)

    def get_params_dependent_on_data(
        self,
        params: dict[str, Any],  # noqa: ARG002
        data: dict[str, Any],
    ) -> dict[str, Any]:
        """Draw the brightness factor of each pixel, (H, W, 1)."""
        height, width = data["image"].shape[:2]
        draw = self.random_generator
        down, across = draw.uniform(-_VIGNETTE_SHIFT, _VIGNETTE_SHIFT, 2)
        stretch = np.exp(draw.uniform(-_VIGNETTE_STRETCH, _VIGNETTE_STRETCH))
        radius, edge = draw.uniform(*_VIGNETTE_RADIUS), draw.uniform(*_VIGNETTE_EDGE)
        y = (np.arange(height) + 0.5) / height - 0.5 - down
        x = (np.arange(width) + 0.5) / width - 0.5 - across
        distance = np.hypot(y[:, None] * stretch, x[None] / stretch)
        inside = np.clip((radius + edge / 2 - distance) / edge, 0, 1)
        outside = draw.uniform(*_VIGNETTE_LIGHT)
        return {"light": (inside + (1 - inside) * outside).astype(np.float32)[..., None]}

    def apply(self, img: Array, light: NDArray[np.float32], **_: Any) -> Array:
        """Apply the brightness factor to an image (H, W, C)."""
        return _from_unit_range(img, _to_unit_range(img) * light)


def _draw_color(
    draw: np.random.Generator, channels: int, *ranges: tuple[float, float]
) -> NDArray[np.float32]:
    """Draw a color from ranges of hue (degrees), saturation and value. Gray uses the value only."""
    hsv = [draw.uniform(*limits) for limits in ranges]
    if channels != 3:
        return np.full(channels, hsv[2], np.float32)
    return np.asarray(cv2.cvtColor(np.array([[hsv]], np.float32), cv2.COLOR_HSV2RGB)[0, 0])


def _to_unit_range(image: Array) -> NDArray[np.float32]:
    """Convert the values of an image to float32 in 0..1."""
    return image.astype(np.float32) / np.float32(255 if image.dtype == np.uint8 else 1)


def _from_unit_range(image: Array, values: NDArray[np.float32]) -> Array:
    """Convert values in 0..1 to the type of `image`."""
    values = np.clip(values, 0, 1)
    if image.dtype != np.uint8:
        return values.astype(image.dtype)
    return np.rint(values * 255).astype(np.uint8)

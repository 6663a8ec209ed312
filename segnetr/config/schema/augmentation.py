"""Settings of the augmentation of training images for segmentation."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from segnetr.config.schema.value_types import Fraction, PositiveNumber


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AugmentConfig:
    """Augmentation of training images; 0, or 1 for a zoom, switches a transform off.

    Attributes:
        flip: Mirror horizontally and vertically, each with probability 1/2, and rotate by quarter
            turns.
        rotate_degrees: Largest rotation in either direction.
        scale: Smallest and largest zoom factor.
        shift: Largest shift in either direction, as a fraction of the image's side.
        stretch: Largest relative change of the aspect ratio.
        border: Fill of the area outside the image. "reflect" mirrors image and mask; "black" is
            background and looks like the dark corners of a dermoscope; "either" chooses one at
            random.
        brightness: Largest relative change of brightness.
        contrast: Largest relative change of contrast.
        saturation: Largest relative change of saturation; color images only.
        hue: Largest shift of hue, as a fraction of the color circle; color images only.
        gamma: Largest logarithm of the exponent of a gamma curve.
        cast: Largest logarithm of a random factor for each color channel.
        uneven_light: Largest logarithm of a smooth illumination gradient over the image.
        blur: Probability of slight Gaussian blur.
        noise: Probability of slight Gaussian noise.
        elastic: Probability of an elastic deformation.
        dropout: Probability that random rectangles of the image (not of the mask) are erased.
        stickers: Probability of colored ellipses near the border, which are background in the mask.
        pen_strokes: Probability of blue or purple pen strokes, which are background in the mask.
        vignette: Probability of darkness outside an ellipse, as in the tube of a dermoscope.
    """

    flip: bool = True
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 45.0
    scale: tuple[PositiveNumber, PositiveNumber] = (0.75, 1.35)
    shift: Fraction = 0.1
    stretch: Fraction = 0.0
    border: Literal["reflect", "black", "either"] = "reflect"
    brightness: Fraction = 0.2
    contrast: Fraction = 0.2
    saturation: Fraction = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    gamma: Fraction = 0.0
    cast: Fraction = 0.0
    uneven_light: Fraction = 0.0
    blur: Fraction = 0.1
    noise: Fraction = 0.1
    elastic: Fraction = 0.0
    dropout: Fraction = 0.0
    stickers: Fraction = 0.0
    pen_strokes: Fraction = 0.0
    vignette: Fraction = 0.0

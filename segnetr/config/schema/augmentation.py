"""Random changes of training images: part of the schema."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class AugmentConfig:
    """Random changes of training images; 0 or 1 as a range's end switches a change off.

    Attributes:
        flip: Mirror left-right and up-down, each with probability 1/2, and turn by quarter turns.
        rotate_degrees: Largest turn to either side.
        scale: Smallest and largest zoom.
        shift: Largest shift to either side, share of the image's side.
        stretch: Largest relative change of the width over the height.
        border: What comes in from outside: "reflect" mirrors image and mask; "black" is background
            and looks like the dark corners of a dermoscope; "either" draws one of both.
        brightness: Largest relative change of brightness.
        contrast: Largest relative change of contrast.
        saturation: Largest relative change of saturation; color images only.
        hue: Largest shift of hue, share of the color circle; color images only.
        gamma: Largest logarithm of the exponent of a gamma curve.
        cast: Largest logarithm of a gain drawn for each color by itself.
        uneven_light: Largest deviation of the logarithm of a smooth gain over the image.
        blur: Probability of a slight Gaussian blur.
        noise: Probability of slight Gaussian noise.
        elastic: Probability of an elastic deformation.
        dropout: Probability that random rectangles of the image (not of the mask) are blanked.
        stickers: Probability of colored ellipses in the outer parts; background for the mask.
        pen_strokes: Probability of blue or purple pen strokes; likewise.
        vignette: Probability of darkness outside an ellipse, as a dermoscope's tube leaves it.
    """

    flip: bool = True
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 45.0
    scale: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.75, 1.35)
    shift: Share = 0.1
    stretch: Share = 0.0
    border: Literal["reflect", "black", "either"] = "reflect"
    brightness: Share = 0.2
    contrast: Share = 0.2
    saturation: Share = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    gamma: Share = 0.0
    cast: Share = 0.0
    uneven_light: Share = 0.0
    blur: Share = 0.1
    noise: Share = 0.1
    elastic: Share = 0.0
    dropout: Share = 0.0
    stickers: Share = 0.0
    pen_strokes: Share = 0.0
    vignette: Share = 0.0

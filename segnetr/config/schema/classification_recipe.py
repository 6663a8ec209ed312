"""Settings of augmentation, mixing and regularization for `segnetr classify`.

The rules are those of `segnetr.config.schema.segmentation`: frozen, strict, plain data.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from segnetr.config.schema.value_types import (
    Fraction,
    Natural,
    Positive,
    PositiveFraction,
    PositiveNumber,
)

_STRICT = ConfigDict(extra="forbid")


def _check_order(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"the range starts at {ends[0]:g} and ends below that, at {ends[1]:g}")
    return ends


Fractions = Annotated[tuple[PositiveFraction, PositiveFraction], AfterValidator(_check_order)]
Ratios = Annotated[tuple[PositiveNumber, PositiveNumber], AfterValidator(_check_order)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClassificationAugmentConfig:
    """Augmentation of labeled images, and how images are resized for evaluation.

    Attributes:
        crop_scale: Smallest and largest area of a random crop, as a fraction of the image's area.
            The crop is resized to the training size. (1, 1): the whole image.
        crop_ratio: Smallest and largest aspect ratio (width over height) of such a crop.
        padding: Instead of the random resized crop: resize the whole image, add this many black
            pixels on all sides, and crop the training size at random, as is usual for CIFAR. 0:
            random resized crop.
        flip: Probability of a horizontal flip.
        flip_vertical: Probability of a vertical flip.
        interpolation: Interpolation of resizing, with an antialiasing filter. "random" chooses one
            of the two for each training image, and "bicubic" for evaluation.
        randaugment_operations: Operations of RandAugment per image, N in the paper. 0: none.
        randaugment_magnitude: Magnitude of the operations, M in the paper, 0 to 10.
        randaugment_deviation: Standard deviation of normal noise on M, drawn for each operation.
            The paper has none; most later recipes use 0.5.
        randaugment_probability: Probability that a chosen operation is applied: 1 in the paper,
            0.5 in most later recipes.
        brightness: Largest relative change of brightness.
        contrast: Largest relative change of contrast.
        saturation: Largest relative change of saturation; color images only.
        hue: Largest shift of hue, as a fraction of the color circle; color images only.
        erasing_probability: Probability that rectangles are erased.
        erasing_mode: Fill of the rectangles. "pixel": a random value per pixel (the paper);
            "color": one random color per rectangle; "mean": the image's mean color.
        erasing_count: Largest number of rectangles; they share the whole erased area.
        evaluation_crop: Fraction of the resized image's sides that the central crop of evaluation
            retains. 1: as much as the aspect ratio of the image size allows.
        evaluation_fit: "crop" preserves the aspect ratio and crops the center; "squash" resizes
            the whole image to the image size.
    """

    crop_scale: Fractions = (0.6, 1.0)
    crop_ratio: Ratios = (3 / 4, 4 / 3)
    padding: Natural = 0
    flip: Fraction = 0.5
    flip_vertical: Fraction = 0.0
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    randaugment_operations: Natural = 0
    randaugment_magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0
    randaugment_deviation: Annotated[float, Field(ge=0)] = 0.5
    randaugment_probability: Fraction = 0.5
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    saturation: Fraction = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    erasing_probability: Fraction = 0.0
    erasing_mode: Literal["pixel", "color", "mean"] = "pixel"
    erasing_count: Positive = 1
    evaluation_crop: PositiveFraction = 1.0
    evaluation_fit: Literal["crop", "squash"] = "crop"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MixingConfig:
    """Mixing of the images of a batch and their labels.

    Attributes:
        mixup_alpha: Both parameters of the beta distribution of mixup. 0: no mixup.
        cutmix_alpha: The same for CutMix. 0: no CutMix.
        switch_probability: Probability of CutMix if both are on.
        probability: Probability that a batch is mixed.
        off_epoch: First epoch without mixing, counted from 0. 0: mixing is never turned off.
    """

    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    cutmix_alpha: Annotated[float, Field(ge=0)] = 0.0
    switch_probability: Fraction = 0.5
    probability: Fraction = 1.0
    off_epoch: Natural = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RegularizationConfig:
    """Regularization of a classifier.

    Attributes:
        label_smoothing: Fraction of the label that is distributed evenly over all classes.
        drop_path: Stochastic depth rate of the last block. None: the network's own.
        layer_decay: Learning rate of a layer, relative to the layer above it; the head has the
            full rate. 1: one rate for all layers.
        class_weights: Weight of each class in the loss: "none"; "balanced", the inverse of its
            number of training cases, with mean 1 over the cases; or one number per class.
        balanced_sampling: Sample each class equally often, instead of each case.
    """

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None
    layer_decay: PositiveFraction = 1.0
    class_weights: Literal["none", "balanced"] | tuple[PositiveNumber, ...] = "none"
    balanced_sampling: bool = False

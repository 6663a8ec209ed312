"""The settings that only a classifier's training has: its images, its mixing, its regularization.

Same rules as `segnetr.config.schema.segmentation`: frozen, strict, plain data.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from segnetr.config.schema.segmentation import Natural, Positive, Share

_STRICT = ConfigDict(extra="forbid")

PositiveShare = Annotated[float, Field(gt=0, le=1)]
PositiveNumber = Annotated[float, Field(gt=0)]


def _in_order(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"the range begins at {ends[0]:g} and ends below it, at {ends[1]:g}")
    return ends


Shares = Annotated[tuple[PositiveShare, PositiveShare], AfterValidator(_in_order)]
Ratios = Annotated[tuple[PositiveNumber, PositiveNumber], AfterValidator(_in_order)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ClassificationAugmentConfig:
    """Random changes of images that carry a label, and how images are fitted for evaluation.

    Attributes:
        crop_scale: Smallest and largest share of the image's area in a random crop, which is
            then resized to the training size; (1, 1): the whole image.
        crop_ratio: Smallest and largest width over height of such a crop.
        padding: Instead of cropping and resizing: resize the whole image, add so many pixels of
            black on all sides and cut the training size out at random, as is usual for CIFAR. 0:
            crop as above.
        flip: Probability of mirroring left and right.
        flip_vertical: Probability of mirroring up and down.
        interpolation: How images are resized, with an antialiasing filter as wide as the
            shrinking asks for; "random" takes one of the two for each image in training, and
            "bicubic" in evaluation.
        randaugment_operations: Operations of RandAugment for each image, N of the article; 0:
            none.
        randaugment_magnitude: Their strength, M of the article, 0 to 10.
        randaugment_deviation: Standard deviation of the normal noise on M, drawn for each
            operation; the article has none, most recipes since then 0.5.
        randaugment_probability: Probability that a chosen operation is carried out; 1 in the
            article, 0.5 in most recipes since then.
        brightness: Largest relative change of brightness.
        contrast: Largest relative change of contrast.
        saturation: Largest relative change of saturation; color images only.
        hue: Largest shift of hue, share of the color circle; color images only.
        erasing_probability: Probability that rectangles are erased.
        erasing_mode: What takes their place: "pixel" random values, each its own (the article);
            "color" one random color for each rectangle; "mean" the image's mean color.
        erasing_count: Largest number of rectangles; their whole area is shared among them.
        evaluation_crop: Share of the fitted image's sides that the central crop of evaluation
            keeps; 1: all that the image size's proportions leave.
        evaluation_fit: "crop" keeps proportions and cuts the middle out; "squash" resizes the
            whole image to the image size, whatever its proportions.
    """

    crop_scale: Shares = (0.6, 1.0)
    crop_ratio: Ratios = (3 / 4, 4 / 3)
    padding: Natural = 0
    flip: Share = 0.5
    flip_vertical: Share = 0.0
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    randaugment_operations: Natural = 0
    randaugment_magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0
    randaugment_deviation: Annotated[float, Field(ge=0)] = 0.5
    randaugment_probability: Share = 0.5
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    erasing_probability: Share = 0.0
    erasing_mode: Literal["pixel", "color", "mean"] = "pixel"
    erasing_count: Positive = 1
    evaluation_crop: PositiveShare = 1.0
    evaluation_fit: Literal["crop", "squash"] = "crop"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MixingConfig:
    """How the images of a batch and their labels are mixed with each other.

    Attributes:
        mixup_alpha: Both parameters of the beta distribution of mixup's share; 0: no mixup.
        cutmix_alpha: Likewise for CutMix; 0: no CutMix.
        switch_probability: Probability of CutMix where both are on.
        probability: Probability that a batch is mixed at all.
        off_epoch: From this epoch on, counted from 0, nothing is mixed; 0: never off.
    """

    mixup_alpha: Annotated[float, Field(ge=0)] = 0.0
    cutmix_alpha: Annotated[float, Field(ge=0)] = 0.0
    switch_probability: Share = 0.5
    probability: Share = 1.0
    off_epoch: Natural = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RegularizationConfig:
    """What else keeps a classifier from learning its training set by heart.

    Attributes:
        label_smoothing: Share of the ground truth that is spread evenly over all classes.
        drop_path: Rate of stochastic depth in the last block; None: the network's own.
        layer_decay: Learning rate of a layer over that of the layer behind it; the head has the
            full rate; 1: one rate for all.
        class_weights: Weight of each class in the loss: "none"; "balanced" by the inverse of its
            number of training cases, with a mean of 1 over the cases; or one number a class.
        balanced_sampling: Show each class equally often, in place of each case.
    """

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None
    layer_decay: PositiveShare = 1.0
    class_weights: Literal["none", "balanced"] | tuple[PositiveNumber, ...] = "none"
    balanced_sampling: bool = False

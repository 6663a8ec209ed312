"""Every setting of segmentation: its type, unit, range and default.

A configuration is data: frozen, without expressions, import paths or class names. Unknown keys are
errors. Workflows pass sections of it down (`DataConfig` to the data, `ModelConfig` to the models),
never the whole configuration.

The first sentence of an attribute's description is the help text of its flag, if it has one.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from segnetr.config.schema.augmentation import AugmentConfig
from segnetr.config.schema.intensity import IntensityConfig
from segnetr.config.schema.postprocessing import PostprocessingStep
from segnetr.config.schema.value_types import (
    EncoderSetting,
    Even,
    Fraction,
    ImageSize,
    Natural,
    Positive,
    PositiveFraction,
    PositiveNumber,
)
from segnetr.config.schema.volumes import SliceConfig

__all__ = [
    "AugmentConfig",
    "DataConfig",
    "EvaluateConfig",
    "ImageSize",
    "IntensityConfig",
    "LoopConfig",
    "ModelConfig",
    "MonaiConfig",
    "PredictConfig",
    "RunConfig",
    "SegNetrConfig",
    "TrainConfig",
    "UNetConfig",
    "UShapeConfig",
]

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """Dataset, split and loading.

    Attributes:
        dataset: Name of the dataset (segnetr data list).
        data_dir: Folder of the dataset, unpacked as published.
        validation_share: Fraction of the cases for validation, where no official split is complete.
        test_share: Fraction of the cases for testing, likewise.
        split_seed: Seed of such a split, and of the folds.
        fold: Number of the fold to validate on, 1 to `folds`. Training uses the other folds; the
            test split is in no fold. None: no cross-validation.
        folds: Number of folds of a cross-validation.
        skip_invalid: Train without the cases that have issues, and list them in the run.
        cache_dir: Folder of decoded, downsampled copies. None: the user's cache folder.
        workers: Number of data loading processes. 0 loads in the training process.
        max_pixels: Largest number of pixels of an image. Larger ones are refused before memory is
            allocated.
        intensity: Normalization of gray values and colors.
        slices: How volumes are cut into images.
    """

    dataset: str = "synthetic"
    data_dir: Path | None = None
    validation_share: Fraction = 0.15
    test_share: Fraction = 0.15
    split_seed: int = 0
    fold: Positive | None = None
    folds: Annotated[int, Field(ge=2)] = 5
    skip_invalid: bool = False
    cache_dir: Path | None = None
    workers: Natural = 2
    max_pixels: Positive = 200_000_000
    intensity: IntensityConfig = Field(default_factory=IntensityConfig)
    slices: SliceConfig = Field(default_factory=SliceConfig)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SegNetrConfig:
    """The SegNetr network, with its own encoder or any backbone instead.

    Attributes:
        architecture: Discriminator of the model configurations.
        encoder: Encoder of SegNetr: segnetr, a backbone such as mobilevit_s, or timm:NAME.
            "segnetr" is the paper's own. Backbones are the names of
            `hybrid_backbones.list_models()`. timm is optional.
        encoder_settings: Fields of the backbone's own configuration, for example `drop_path`.
        width: Channels of the first stage, C in the paper: 64 for SegNetr, 32 for SegNetr-S. With a
            backbone, the full-resolution level has C/4 channels, and each level down to the
            finest of the backbone has twice as many.
        windows: Side of the local windows in the four stages, in feature-map pixels. The global
            windows are twice as large.
        mixing: Axis along which the interaction FFN works. "window": the axis of windows (the
            reading that the published parameter counts imply; built for the grid of `native_size`
            and interpolated elsewhere). "position": the P x P positions of a window (the literal
            text; any size).
        mixing_ratio: Hidden width of the interaction FFN, relative to its input width.
        expansion: Hidden width of MBConv, relative to its input width.
        squeeze_ratio: Hidden width of squeeze-excitation, relative to MBConv's input width. 0: no
            squeeze-excitation.
        ffn_ratio: Hidden width of the channel FFN, relative to its input width.
        native_size: Image size (height, width) for which the mixing matrices of "window" are built.
            None: the training size.
        skip: Skip connection between encoder and decoder.
        interaction: Branches of the blocks. "none" leaves MBConv and the channel FFN.
    """

    architecture: Literal["segnetr"] = "segnetr"
    encoder: Annotated[str, Field(pattern=r"^(timm:)?[A-Za-z0-9_.]+$", max_length=100)] = "segnetr"
    encoder_settings: dict[str, EncoderSetting] = Field(default_factory=dict)
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    windows: tuple[Positive, Positive, Positive, Positive] = (8, 4, 2, 1)
    mixing: Literal["window", "position"] = "window"
    mixing_ratio: PositiveNumber = 1.0
    expansion: Positive = 4
    squeeze_ratio: Fraction = 0.25
    ffn_ratio: PositiveNumber = 3.0
    native_size: ImageSize | None = None
    skip: Literal["irsc", "concat", "add"] = "irsc"
    interaction: Literal["both", "local", "global", "none"] = "both"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class UNetConfig:
    """The U-Net of the paper's comparison: no batch normalization, transposed convolutions.

    Attributes:
        architecture: Discriminator of the model configurations.
        width: Channels of the first level, doubled at each of the four lower levels.
        skip: Skip connection. "plain": U-Net's own concatenation; "irsc": information retention
            instead.
        block: Block of each level. "convolution": two 3x3 convolutions, as published; "segnetr":
            one of them and a SegNetr block (mixing along positions, any size).
    """

    architecture: Literal["unet"] = "unet"
    width: Annotated[int, Field(ge=2, multiple_of=2)] = 64
    skip: Literal["plain", "irsc"] = "plain"
    block: Literal["convolution", "segnetr"] = "convolution"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class UShapeConfig:
    """A U-shaped network of the paper's skip ablation, with its own skips or with IRSC.

    Attributes:
        architecture: Name of the network.
        widths: Channels of the five levels, finest first. All are even.
        skip: Skip connection. "plain": the network's own (nested concatenation in U-Net++, pooling
            indices in SegNet, addition in UNeXt); "irsc": information retention instead.
    """

    architecture: Literal["unet_plus_plus", "segnet", "unext"]
    widths: tuple[Even, Even, Even, Even, Even]
    skip: Literal["plain", "irsc"] = "plain"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MonaiConfig:
    """A two-dimensional network of MONAI.

    Attributes:
        architecture: Name of the network.
        features: Channels of the levels. "swin_unetr" uses only the first (a multiple of 12).
    """

    architecture: Literal["basic_unet", "attention_unet", "swin_unetr"]
    features: tuple[Positive, ...] = (32, 32, 64, 128, 256, 32)


ModelConfig = Annotated[
    SegNetrConfig | UNetConfig | UShapeConfig | MonaiConfig, Field(discriminator="architecture")
]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LoopConfig:
    """Training settings that segmentation and classification share.

    Attributes:
        image_size: Size of the training images, (height, width) in pixels. One number is a square.
        batch_size: Images per forward pass and process.
        accumulate: Forward passes per optimizer step.
        epochs: Passes over the training cases. Ignored if `steps` is set.
        steps: Optimizer steps, instead of epochs.
        max_minutes: Time limit in minutes; training stops after the current step. The schedule is
            not shortened, so set `steps` as well. A run that stops this way is not reproducible
            bit for bit.
        optimizer: Optimizer. "adamw", "adam" (the paper's) or "sgd" (with Nesterov momentum 0.9).
        lr: Peak learning rate.
        weight_decay: Weight decay of matrices and kernels. Biases and norms are never decayed.
        schedule: Learning-rate schedule. "cosine" to a hundredth of `lr`, or "constant" (the
            paper's).
        warmup_steps: Steps of linear warm-up from zero.
        ema_decay: Decay of the exponential moving average of the weights. The average is validated
            and saved. 0: no average.
        clip_norm: Largest norm of the gradient. 0: no limit.
        amp: Mixed precision. "auto": bf16 on a GPU that supports it, fp16 on other GPUs, off on a
            CPU.
        compile: Use torch.compile.
        channels_last: Use the channels-last memory format.
        deterministic: Use deterministic algorithms only.
        device: Device: auto, cpu, cuda or cuda:1. "auto" uses a GPU if there is one.
        seed: Seed of weights, order and augmentation.
        validate_every: Steps between validations. 0: once per epoch.
        save_every: Steps between checkpoints. 0: at every validation.
        patience: Stop after this many validations without a better score. 0: never.
        weights: Run or model folder whose weights training starts from. A run on synthetic images
            is a good start if there are few real ones. None: from scratch.
        keep: Weights that become the model: those with the best validation score, or the last
            ones. Without validation cases, always the last ones.
    """

    image_size: ImageSize = (224, 224)
    batch_size: Positive = 8
    accumulate: Positive = 1
    epochs: Positive = 100
    steps: Positive | None = None
    max_minutes: PositiveNumber | None = None
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: PositiveNumber = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: Natural = 20
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    compile: bool = False
    channels_last: bool = True
    deterministic: bool = False
    device: str = "auto"
    seed: int = 0
    validate_every: Natural = 0
    save_every: Natural = 0
    patience: Natural = 0
    weights: Path | None = None
    keep: Literal["best", "last"] = "best"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainConfig(LoopConfig):
    """Training settings of a segmentation network.

    Attributes:
        loss: Loss function. "ce" is the paper's. The names are those of `segnetr.losses`.
        encoder_weights: Run, model folder or published checkpoint that the encoder starts from.
        accept_partial: Accept encoder weights of which fewer than 90 % fit.
        encoder_lr_factor: Learning rate of the encoder, relative to that of the other layers.
        encoder_layer_decay: Factor of the learning rate from each layer of the encoder to the one
            below. 1: no decay.
        freeze_encoder_epochs: Epochs during which the encoder is frozen, including the statistics
            of its batch norms.
    """

    loss: str = "dice_ce"
    encoder_weights: Path | None = None
    accept_partial: bool = False
    encoder_lr_factor: PositiveNumber = 1.0
    encoder_layer_decay: PositiveFraction = 1.0
    freeze_encoder_epochs: Natural = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PredictConfig:
    """How a network is applied to a file.

    Attributes:
        mode: How an image is fitted to the network. "resize": the whole image is resized to the
            training size, and the result is resized back. "window": windows of the training size
            slide over the image.
        overlap: Overlap of neighboring windows, as a fraction of the window.
        window_batch: Windows per forward pass.
        weights: Weights of the pixels of a window. "gaussian": the center counts most; "constant":
            all count the same.
        inferer: Sliding-window inferer. "bounded": needs memory for one row of windows. "monai":
            MONAI's SlidingWindowInferer, with the same result up to rounding.
        tta: Test-time augmentation. "flips": mean over the four flips of an image. "d4": over the
            flips and quarter-turn rotations, eight in all.
        threshold: Least odds of foreground. A pixel is foreground if the odds of its most probable
            foreground class against the background are at least `threshold : 1 - threshold`; with
            one foreground class, if its probability is above `threshold`.
        postprocessing: Postprocessing steps of the labels, in order. See
            `segnetr.engine.inference.postprocessing`.
        search_postprocessing: Choose `threshold` and `postprocessing` on the validation cases at
            the end of training. The model then contains the choice.
        quality: Predict the Dice of each mask, and flag out-of-distribution images. A training
            with validation cases fits what is needed.
    """

    mode: Literal["resize", "window"] = "resize"
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    window_batch: Positive = 4
    weights: Literal["gaussian", "constant"] = "gaussian"
    inferer: Literal["bounded", "monai"] = "bounded"
    tta: Literal["none", "flips", "d4"] = "none"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    postprocessing: tuple[PostprocessingStep, ...] = ()
    search_postprocessing: bool = False
    quality: bool = True


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EvaluateConfig:
    """How masks are scored.

    Attributes:
        nsd_tolerance: Tolerance of the normalized surface Dice, in millimeters if the file has
            spacing, otherwise in pixels.
        bootstrap: Resamples of the 95 % interval.
        isic_threshold: Least IoU that counts in the ISIC challenge's thresholded Jaccard. Lower
            values count as 0.
        seed: Seed of the resampling.
    """

    nsd_tolerance: PositiveNumber = 2.0
    bootstrap: Natural = 2000
    isic_threshold: Fraction = 0.65
    seed: int = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RunConfig:
    """Everything that defines a run; written into the run, and sufficient to repeat it."""

    data: DataConfig = Field(default_factory=DataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    model: ModelConfig = Field(default_factory=SegNetrConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    predict: PredictConfig = Field(default_factory=PredictConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)

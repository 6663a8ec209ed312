"""Every setting of the application: its type, unit, range and default.

A configuration is data: frozen, without expressions, import paths or class names. Unknown keys
are errors. Workflows hand parts of it down (`DataConfig` to the data, `ModelConfig` to the models),
never the whole.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from segnetr.config.schema.augmentation import AugmentConfig as AugmentConfig  # noqa: PLC0414
from segnetr.config.schema.intensity import IntensityConfig as IntensityConfig  # noqa: PLC0414
from segnetr.config.schema.postprocessing import PostprocessingStep
from segnetr.config.schema.volumes import SliceConfig

_STRICT = ConfigDict(extra="forbid")

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Even = Annotated[int, Field(ge=2, multiple_of=2)]
Side = Annotated[int, Field(ge=32, le=8192)]


def _as_pair(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)  # the strict check of a model's card takes no list for a tuple here
    return (value, value) if isinstance(value, int) else value


ImageSize = Annotated[tuple[Side, Side], BeforeValidator(_as_pair)]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Number = bool | int | float
EncoderSetting = Annotated[Number | str | tuple[Number, ...], BeforeValidator(_as_tuple)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DataConfig:
    """Which data set, where it lies, how it is split and loaded.

    Attributes:
        dataset: Name of a data set, see `segnetr data list`.
        data_dir: Folder that holds the unpacked original folders.
        validation_share: Share of the cases for validation where no official split is complete.
        test_share: Share of the cases for testing, likewise.
        split_seed: Seed of such a split, and of the folds.
        fold: Validate on this fold, 1 to `folds`, and train on the others; the test part is in no
            fold. None: no cross-validation.
        folds: Number of folds.
        skip_invalid: Train without the cases that have issues, and list them in the run.
        cache_dir: Folder of decoded, reduced copies; None: the user's cache folder.
        workers: Worker processes for loading; 0 loads in the training process.
        max_pixels: Larger images are refused before memory is taken for them.
        intensity: How values are normalized.
        slices: How volumes are cut into images.
    """

    dataset: str = "synthetic"
    data_dir: Path | None = None
    validation_share: Share = 0.15
    test_share: Share = 0.15
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
    """The SegNetr network, with its own encoder or any backbone in its place.

    Attributes:
        architecture: The discriminator of the model configurations.
        encoder: "segnetr": the paper's; a name of `hybrid_backbones.list_models()`; or
            "timm:NAME" where timm is installed.
        encoder_settings: Fields of the backbone's own configuration, as `drop_path`.
        width: Channels of the first stage, C in the paper: 64 for SegNetr, 32 for SegNetr-S.
            With a backbone the pixel grid has C/4, and each level down to the backbone's finest
            twice as many.
        windows: Side of the local windows in the four stages, in feature pixels; the global
            windows are twice as large.
        mixing: "window": the interaction FFN works along the axis of windows (the reading the
            published counts force; tied to the grid of `native_size`, interpolated elsewhere).
            "position": along the P x P positions of a window (the literal text; any size).
        mixing_ratio: Hidden width of the interaction FFN over its input width.
        expansion: Hidden width of MBConv over its input width.
        squeeze_ratio: Hidden width of squeeze-excitation over MBConv's input width; 0: none.
        ffn_ratio: Hidden width of the channel FFN over its input width.
        native_size: Image size (height, width) that the mixing matrices of "window" are made for;
            None: the training size.
        skip: How encoder maps reach the decoder.
        interaction: Which branches the blocks have; "none" leaves MBConv and channel FFN.
    """

    architecture: Literal["segnetr"] = "segnetr"
    encoder: Annotated[str, Field(pattern=r"^(timm:)?[A-Za-z0-9_.]+$", max_length=100)] = "segnetr"
    encoder_settings: dict[str, EncoderSetting] = Field(default_factory=dict)
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 64
    windows: tuple[Positive, Positive, Positive, Positive] = (8, 4, 2, 1)
    mixing: Literal["window", "position"] = "window"
    mixing_ratio: Annotated[float, Field(gt=0)] = 1.0
    expansion: Positive = 4
    squeeze_ratio: Annotated[float, Field(ge=0, le=1)] = 0.25
    ffn_ratio: Annotated[float, Field(gt=0)] = 3.0
    native_size: ImageSize | None = None
    skip: Literal["irsc", "concat", "add"] = "irsc"
    interaction: Literal["both", "local", "global", "none"] = "both"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class UNetConfig:
    """The U-Net the paper compares with: no batch normalization, transposed convolutions.

    Attributes:
        architecture: The discriminator of the model configurations.
        width: Channels of the first level; doubled at each of the four lower ones.
        skip: "plain": U-Net's own concatenation; "irsc": information retention in its place.
        block: "convolution": two 3x3 convolutions a level, as published; "segnetr": one of them
            and a SegNetr block (mixing along positions, any size).
    """

    architecture: Literal["unet"] = "unet"
    width: Annotated[int, Field(ge=2, multiple_of=2)] = 64
    skip: Literal["plain", "irsc"] = "plain"
    block: Literal["convolution", "segnetr"] = "convolution"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class UShapeConfig:
    """A U-shaped network of the paper's skip ablation, with its own skips or with IRSC.

    Attributes:
        architecture: Which one.
        widths: Channels by level, finest first; five, all even.
        skip: "plain": the network's own (nested concatenation in U-Net++, pooling indices in
            SegNet, addition in UNeXt); "irsc": information retention in its place.
    """

    architecture: Literal["unet_plus_plus", "segnet", "unext"]
    widths: tuple[Even, Even, Even, Even, Even]
    skip: Literal["plain", "irsc"] = "plain"


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class MonaiConfig:
    """A two-dimensional network of MONAI.

    Attributes:
        architecture: Which one.
        features: Channels by level; for "swin_unetr" only the first counts (a multiple of 12).
    """

    architecture: Literal["basic_unet", "attention_unet", "swin_unetr"]
    features: tuple[Positive, ...] = (32, 32, 64, 128, 256, 32)


ModelConfig = Annotated[
    SegNetrConfig | UNetConfig | UShapeConfig | MonaiConfig, Field(discriminator="architecture")
]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class LoopConfig:
    """How any network is trained: what segmentation and classification share.

    Attributes:
        image_size: Size of the training images, (height, width) in pixels; one number: a square.
        batch_size: Images in one forward pass of one process.
        accumulate: Forward passes for one optimizer step.
        epochs: Passes over the training cases; ignored where `steps` is given.
        steps: Optimizer steps.
        max_minutes: Stop after this many minutes of training, at the end of a step. The schedule
            is not shortened: give `steps` as well. A run stopped so is not repeatable to the bit.
        optimizer: "adamw", "adam" (the paper's) or "sgd" (with Nesterov momentum 0.9).
        lr: Learning rate at its highest.
        weight_decay: Decay of matrices and kernels; biases and norms are never decayed.
        schedule: "cosine" to a hundredth of `lr`, or "constant" (the paper's).
        warmup_steps: Steps with a learning rate rising from zero.
        ema_decay: Decay of the moving average of the weights, which is validated and saved;
            0: none.
        clip_norm: Largest norm of the gradient; 0: no limit.
        amp: Mixed precision; "auto": bf16 on a GPU that has it, else fp16 on a GPU, off on a CPU.
        compile: Use torch.compile.
        channels_last: Memory layout of the network and its inputs.
        deterministic: Ask torch for deterministic algorithms.
        device: "auto" takes a GPU where there is one.
        seed: Seed of weights, order and augmentation.
        validate_every: Steps between validations; 0: once an epoch.
        save_every: Steps between checkpoints; 0: at every validation.
        patience: Stop after this many validations without a better score; 0: never.
        weights: A run or model folder whose weights the training starts from; a run on drawn
            images is a start where there are few real ones. None: from scratch.
        keep: Which weights become the model: those with the best validation score, or the last
            ones. Without validation cases always the last.
    """

    image_size: ImageSize = (224, 224)
    batch_size: Positive = 8
    accumulate: Positive = 1
    epochs: Positive = 100
    steps: Positive | None = None
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
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
    """How a segmentation network is trained.

    Attributes:
        loss: By name; "ce" is the paper's.
        encoder_weights: A run, a model folder or a checkpoint file that the encoder starts from.
        accept_partial: Take them even if fewer than nine tenths of the encoder's tensors fit.
        encoder_lr_factor: Learning rate of the encoder over that of the rest.
        encoder_layer_decay: Factor of the learning rate from each layer of the encoder to the one
            below; 1: none.
        freeze_encoder_epochs: The encoder stays as it is for so many passes over the training
            cases, statistics of its batch norms included.
    """

    loss: Literal["dice_ce", "ce", "dice", "dice_focal", "tversky"] = "dice_ce"
    encoder_weights: Path | None = None
    accept_partial: bool = False
    encoder_lr_factor: Annotated[float, Field(gt=0)] = 1.0
    encoder_layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    freeze_encoder_epochs: Natural = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class PredictConfig:
    """How a network is applied to a file.

    Attributes:
        mode: "resize" brings the whole image to the training size and the result back;
            "window" slides windows of the training size over the image.
        overlap: Overlap of neighboring windows, share of the window.
        window_batch: Windows in one forward pass.
        weights: "gaussian": the middle of a window counts most; "constant": all of it alike.
        inferer: "bounded" needs memory for one row of windows only; "monai" uses MONAI's
            SlidingWindowInferer, with the same result up to rounding.
        tta: "flips": mean over the four mirrorings of a image; "d4": over its turns by a quarter
            as well, eight in all.
        threshold: A pixel is foreground where its most probable foreground class stands to the
            background at least as this to the rest of 1; with one foreground class, where its
            probability is above this.
        post: Repairs of the labels, in their order; see `segnetr.engine.inference.postprocessing`.
        search_postprocessing: Let the training choose `threshold` and `post` on its validation
            cases; what
            it chose then stands in the model.
        quality: Say of each mask which Dice it probably has, and whether the image is unlike the
            training set. A training with validation cases fits what is needed at its end.
    """

    mode: Literal["resize", "window"] = "resize"
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    window_batch: Positive = 4
    weights: Literal["gaussian", "constant"] = "gaussian"
    inferer: Literal["bounded", "monai"] = "bounded"
    tta: Literal["none", "flips", "d4"] = "none"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    post: tuple[PostprocessingStep, ...] = ()
    search_postprocessing: bool = False
    quality: bool = True


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class EvaluateConfig:
    """How masks are scored.

    Attributes:
        nsd_tolerance: Tolerance of the normalized surface Dice, in millimeters where the file has
            spacing, else in pixels.
        bootstrap: Resamples of the 95 % interval.
        isic_threshold: IoU below this counts 0 in the ISIC challenge's thresholded Jaccard.
        seed: Seed of the resampling.
    """

    nsd_tolerance: Annotated[float, Field(gt=0)] = 2.0
    bootstrap: Natural = 2000
    isic_threshold: Share = 0.65
    seed: int = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RunConfig:
    """Everything a run is made of; written into the run, and enough to repeat it."""

    data: DataConfig = Field(default_factory=DataConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    model: ModelConfig = Field(default_factory=SegNetrConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    predict: PredictConfig = Field(default_factory=PredictConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)

"""The flags, each defined once: one name, one meaning, in every command."""

from pathlib import Path
from typing import Annotated

import typer

_DATA = "Data"
_MODEL = "Model"
_TRAINING = "Training"
_OUTPUT = "Output"

Dataset = Annotated[
    str | None,
    typer.Option("--dataset", help="Data set, see `segnetr data list`.", rich_help_panel=_DATA),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Folder with the unpacked original folders.", rich_help_panel=_DATA
    ),
]
SkipInvalid = Annotated[
    bool | None,
    typer.Option(
        "--skip-invalid",
        help="Train without the cases that have issues, and list them in the run.",
        rich_help_panel=_DATA,
    ),
]
Fold = Annotated[
    str | None,
    typer.Option(
        "--fold", help="Cross-validation: all, or one fold 1, 2, ...", rich_help_panel=_DATA
    ),
]
Folds = Annotated[
    int | None,
    typer.Option("--folds", help="Number of folds, default 5.", rich_help_panel=_DATA),
]
ClassificationSource = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="cifar10, cifar100, imagefolder, medmnist, table.",
        rich_help_panel=_DATA,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Processes that load data.", rich_help_panel=_DATA),
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="Network, see `segnetr models list`.", rich_help_panel=_MODEL),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="Encoder of SegNetr: segnetr, a backbone as mobilevit_s, or timm:NAME.",
        rich_help_panel=_MODEL,
    ),
]
EncoderWeights = Annotated[
    Path | None,
    typer.Option(
        "--encoder-weights",
        help="Run, model folder or official checkpoint file that the encoder starts from.",
        rich_help_panel=_MODEL,
    ),
]
AcceptPartial = Annotated[
    bool | None,
    typer.Option(
        "--accept-partial",
        help="Take encoder weights of which fewer than 90 % fit.",
        rich_help_panel=_MODEL,
    ),
]
BackboneName = Annotated[
    str | None,
    typer.Option("--backbone", help="Network, as cvt_13 or mobilevit_xxs.", rich_help_panel=_MODEL),
]
Pretrained = Annotated[
    Path | None,
    typer.Option(
        "--pretrained", help="Published checkpoint to start from.", rich_help_panel=_MODEL
    ),
]
StartWeights = Annotated[
    Path | None,
    typer.Option("--weights", help="Run of ours to start from.", rich_help_panel=_MODEL),
]
Skip = Annotated[
    str | None,
    typer.Option("--skip", help="Skip connection: irsc, concat, add.", rich_help_panel=_MODEL),
]
Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        help="YAML file or packaged recipe, as train/paper; may be repeated.",
        rich_help_panel=_TRAINING,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any setting, as train.image_size=256; may be repeated.",
        rich_help_panel=_TRAINING,
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", help="Passes over the training cases.", rich_help_panel=_TRAINING),
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", help="Optimizer steps, in place of epochs.", rich_help_panel=_TRAINING),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", help="Images in one step.", rich_help_panel=_TRAINING),
]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", help="Highest learning rate.", rich_help_panel=_TRAINING),
]
Loss = Annotated[
    str | None,
    typer.Option(
        "--loss", help="dice_ce, ce, dice, dice_focal, tversky.", rich_help_panel=_TRAINING
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="Seed of weights, order, augmentation.", rich_help_panel=_TRAINING),
]
Amp = Annotated[
    str | None,
    typer.Option(
        "--amp", help="Mixed precision: auto, bf16, fp16, off.", rich_help_panel=_TRAINING
    ),
]
Compile = Annotated[
    bool | None,
    typer.Option("--compile/--no-compile", help="Use torch.compile.", rich_help_panel=_TRAINING),
]
Deterministic = Annotated[
    bool | None,
    typer.Option(
        "--deterministic/--no-deterministic",
        help="Deterministic algorithms only.",
        rich_help_panel=_TRAINING,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with the run in --out, to the bit as if unbroken.",
        rich_help_panel=_TRAINING,
    ),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu, cuda, cuda:1."),
]
ModelFolder = Annotated[
    Path,
    typer.Option("--model", help="Run folder, or the model folder inside it."),
]
ModelFolders = Annotated[
    list[Path],
    typer.Option(
        "--model", help="Run or model folder; several, one behind the other, answer together."
    ),
]
Ensemble = Annotated[
    str,
    typer.Option("--ensemble", help="Several models: mean, vote, or soup (mean of weights)."),
]
Tta = Annotated[
    str | None,
    typer.Option("--tta", help="Test-time augmentation: none, flips, d4."),
]
MaxMemory = Annotated[
    str | None,
    typer.Option("--max-memory", help="Most main memory of the process, as 2G."),
]
SkipExisting = Annotated[
    bool,
    typer.Option("--skip-existing", help="Leave inputs alone whose masks are there."),
]
ShardOf = Annotated[
    str | None,
    typer.Option("--shard", help="The part of the inputs to do, as 2/8."),
]
Overlay = Annotated[
    bool,
    typer.Option("--overlay", help="Also write images with contours.", rich_help_panel=_OUTPUT),
]
SaveProb = Annotated[
    bool,
    typer.Option("--save-prob", help="Also write probabilities.", rich_help_panel=_OUTPUT),
]
SaveUncertainty = Annotated[
    bool,
    typer.Option(
        "--save-uncertainty",
        help="Also write maps of entropy, and of variance over --tta.",
        rich_help_panel=_OUTPUT,
    ),
]
PredictQuality = Annotated[
    bool | None,
    typer.Option(
        "--quality/--no-quality",
        help="Predicted Dice and out-of-distribution flag in predictions.csv.",
        rich_help_panel=_OUTPUT,
    ),
]
MaskFormat = Annotated[
    str,
    typer.Option(
        "--format",
        help="Masks as same (the input's), png, palette, bmp, tif, nii, nii.gz, nrrd, mha, dcm.",
        rich_help_panel=_OUTPUT,
    ),
]
Series = Annotated[
    str | None,
    typer.Option("--series", help="DICOM: SeriesInstanceUID, where a folder holds several."),
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="With a classifier: also write Grad-CAM images and attention distances.",
        rich_help_panel=_OUTPUT,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for the result itself.", rich_help_panel=_OUTPUT),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Result as one JSON object.", rich_help_panel=_OUTPUT),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="No progress.", rich_help_panel=_OUTPUT),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", help="Tracebacks of errors.", rich_help_panel=_OUTPUT),
]

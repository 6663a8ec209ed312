"""`segnetr predict`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from segnetr.errors import STOP_CODES, UsageError

from . import flags as f
from .command import PARTIAL_SUCCESS, Console, command

_OUTPUT = f.OUTPUT_PANEL
# Files that mark a run, a model folder or the folder of a cross-validation.
_MODEL_MARKS = ("model.json", "model/model.json", "cross_validation.json")

Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="INPUT", help="Images, volumes, DICOM series, or folders of them."),
]
ModelFolders = Annotated[
    list[Path],
    typer.Option("--model", metavar="RUN", help="Run or model folder; several form an ensemble."),
]
MasksOut = Annotated[
    Path,
    typer.Option("--out", metavar="DIR", help="Folder of the masks.", rich_help_panel=_OUTPUT),
]
EnsembleMode = Annotated[
    str, typer.Option("--ensemble", metavar="mean|vote|soup", help="How models are combined.")
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="Limit on the memory of the process, for example 2G.",
    ),
]
SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Skip inputs that have masks already.")
]
ShardFlag = Annotated[
    str | None, typer.Option("--shard", metavar="I/N", help="Process every Nth input.")
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
MaskFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAME",
        help="same (as the input), png, palette, bmp, tif, nii, nii.gz, nrrd, mha or dcm.",
        rich_help_panel=_OUTPUT,
    ),
]
Series = Annotated[
    str | None,
    typer.Option("--series", metavar="UID", help="SeriesInstanceUID of the DICOM series."),
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Classifiers: also write Grad-CAM images and attention distances.",
        rich_help_panel=_OUTPUT,
    ),
]


@command("predict.tta", "predict.quality", "train.device", lists=["--model"])
def predict(
    flags: Mapping[str, Any],
    console: Console,
    inputs: Inputs,
    models: ModelFolders,
    out: MasksOut,
    ensemble: EnsembleMode = "mean",
    max_memory: MaxMemory = None,
    skip_existing: SkipExisting = False,
    shard: ShardFlag = None,
    overlay: Overlay = False,
    save_prob: SaveProb = False,
    save_uncertainty: SaveUncertainty = False,
    mask_format: MaskFormat = "same",
    series: Series = None,
    explain: Explain = False,
    assignments: f.Set = None,
) -> None:
    """Segment images with trained models; masks have the pixel grid of their inputs.

    With a classifier, write a table of class probabilities.

    Example: segnetr predict photos/ --model runs/first --out masks --overlay
    """
    from segnetr.config.load import read_changes
    from segnetr.config.memory_sizes import parse_size
    from segnetr.config.shards import parse_shard

    _check_inputs(inputs)
    settings: dict[str, Any] = {
        "changes": read_changes(
            "predict", f.section(flags, "predict"), assignments=assignments or ()
        ),
        "shard": None if shard is None else parse_shard(shard),
        "max_memory": None if max_memory is None else parse_size(max_memory),
    }
    from segnetr.outputs.models.classifier_file import is_classifier
    from segnetr.workflows.prediction.ensemble import Ensemble
    from segnetr.workflows.prediction.predict import PredictOptions
    from segnetr.workflows.prediction.predict import predict as predict_masks

    if ensemble not in get_args(Ensemble):
        raise UsageError(f"--ensemble {ensemble}: choose {', '.join(get_args(Ensemble))}")
    options = PredictOptions(
        **settings,
        ensemble=ensemble,  # type: ignore[arg-type]
        skip_existing=skip_existing,
        overlay=overlay,
        save_prob=save_prob,
        save_uncertainty=save_uncertainty,
        explain=explain,
        format_name=mask_format,
        series=series,
        device=flags["train.device"] or "auto",
    )
    progress = console.progress()
    if any(is_classifier(model) for model in models):
        from segnetr.workflows.classification.predict import predict_classes

        table = predict_classes(inputs, models, out, options, progress=progress)
        console.print(table)
        raise typer.Exit(PARTIAL_SUCCESS if table.failed else 0)
    outcome = predict_masks(inputs, models, out, options, progress=progress)
    console.print(outcome)
    stopped = STOP_CODES.get(outcome.stopped or "")
    raise typer.Exit(stopped or (PARTIAL_SUCCESS if outcome.failed else 0))


def _check_inputs(inputs: Sequence[Path]) -> None:
    """Raise UsageError if an input is a model folder."""
    for path in inputs:
        if any((path / mark).is_file() for mark in _MODEL_MARKS):
            raise UsageError(f"{path} is a model, not an input: put the inputs before --model")

"""`segnetr predict`."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from typer.core import TyperCommand

from segnetr.config.load import read_changes
from segnetr.config.memory_sizes import parse_size
from segnetr.config.shards import parse_shard
from segnetr.errors import UsageError

from . import options as o
from .console import print_result

PARTIAL = 3
STOP_CODES = {"interrupted": 130, "terminated": 143}
# What lies in a run, a model folder or the folder of a cross-validation.
_MODEL_MARKS = ("model.json", "model/model.json", "cross_validation.json")


class PredictCommand(TyperCommand):
    """Takes `--model A B C`: words behind a model that are models as well are further ones."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line."""
        return super().parse_args(ctx, repeat_model_flag(args))


def repeat_model_flag(args: list[str]) -> list[str]:
    """Write `--model A B C` as `--model A --model B --model C`; images are left as they are."""
    written: list[str] = []
    follows = False
    for number, word in enumerate(args):
        is_value = number > 0 and args[number - 1] == "--model"
        if follows and not word.startswith("-") and not is_value:
            if _is_model(Path(word)):
                written.append("--model")
            else:
                follows = False
        elif word.startswith("-"):
            follows = word == "--model" or word.startswith("--model=")
        written.append(word)
    return written


def _is_model(path: Path) -> bool:
    return any((path / mark).is_file() for mark in _MODEL_MARKS)


def predict(
    inputs: Annotated[
        list[Path], typer.Argument(help="Images, volumes, DICOM series, or folders of them.")
    ],
    models: o.ModelFolders,
    out: Annotated[Path, typer.Option("--out", help="Folder for the masks.")],
    ensemble: o.Ensemble = "mean",
    tta: o.Tta = None,
    max_memory: o.MaxMemory = None,
    skip_existing: o.SkipExisting = False,
    shard: o.ShardOf = None,
    overlay: o.Overlay = False,
    save_prob: o.SaveProb = False,
    save_uncertainty: o.SaveUncertainty = False,
    quality: o.PredictQuality = None,
    mask_format: o.MaskFormat = "same",
    series: o.Series = None,
    explain: o.Explain = False,
    device: o.Device = None,
    assignments: o.Set = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Segment images with trained models; masks lie on the grid of the files.

    With a classifier: write a table of probabilities, and with --explain what they rest on.

    Example: segnetr predict photos/ --model runs/first --out masks --overlay
    """
    del verbose
    settings: dict[str, Any] = {
        "changes": read_changes(
            "predict", {"tta": tta, "quality": quality}, assignments=assignments or ()
        ),
        "shard": None if shard is None else parse_shard(shard),
        "max_memory": None if max_memory is None else parse_size(max_memory),
    }
    from segnetr.outputs.models.classifier_file import is_classifier
    from segnetr.progress import Progress
    from segnetr.workflows.prediction.ensemble import Ensemble
    from segnetr.workflows.prediction.predict import PredictOptions
    from segnetr.workflows.prediction.predict import predict as predict_masks

    if ensemble not in get_args(Ensemble):
        raise UsageError(f"--ensemble {ensemble}: choose {', '.join(get_args(Ensemble))}")
    choice = PredictOptions(
        **settings,
        ensemble=ensemble,  # type: ignore[arg-type]
        skip_existing=skip_existing,
        overlay=overlay,
        save_prob=save_prob,
        save_uncertainty=save_uncertainty,
        explain=explain,
        format_name=mask_format,
        series=series,
        device=device or "auto",
    )
    progress = Progress(quiet=quiet or as_json)
    if any(is_classifier(model) for model in models):
        from segnetr.workflows.classification.predict import predict_classes

        answer = predict_classes(inputs, models, out, choice, progress=progress)
        print_result(answer.facts(), as_json=as_json, text=answer.text())
        raise typer.Exit(PARTIAL if answer.failed else 0)
    outcome = predict_masks(inputs, models, out, choice, progress=progress)
    print_result(outcome.facts(), as_json=as_json, text=outcome.text())
    stopped = STOP_CODES.get(outcome.stopped or "")
    raise typer.Exit(stopped or (PARTIAL if outcome.failed else 0))

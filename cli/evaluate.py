"""`segnetr evaluate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segnetr.errors import UsageError

from . import flags as f
from .command import PARTIAL_SUCCESS, Console, command

if TYPE_CHECKING:
    from segnetr.workflows.classification.evaluate import ClassEvaluation
    from segnetr.workflows.evaluation.evaluate import EvaluateOutcome


@command("data.dataset", "data.data_dir", "predict.tta", "train.device")
def evaluate(
    flags: Mapping[str, Any],
    console: Console,
    run_folder: Annotated[Path | None, typer.Argument(metavar="RUN", help="Run folder.")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", metavar="train|validation|test", help="Split to evaluate; default: test."
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", metavar="DIR", help="Folder of masks to evaluate."),
    ] = None,
    ground_truth: Annotated[
        Path | None,
        typer.Option("--ground-truth", metavar="DIR", help="Folder of ground-truth masks."),
    ] = None,
    classes: Annotated[
        str,
        typer.Option(
            "--classes", metavar="A,B", help="Class names for --predictions, background first."
        ),
    ] = "background,foreground",
    assignments: f.Set = None,
    out: f.Out = None,
) -> None:
    """Evaluate a run on its test split or on another dataset, or evaluate a folder of masks.

    Example: segnetr evaluate runs/first --dataset isic2017 --data-dir DIR
    """
    if (run_folder is None) == (predictions is None) or (predictions is None) != (
        ground_truth is None
    ):
        raise UsageError("expected RUN, or --predictions DIR and --ground-truth DIR")
    from segnetr.config.load import read_changes
    from segnetr.config.schema.classification import is_classifier_run
    from segnetr.workflows.classification.evaluate import evaluate_classifier
    from segnetr.workflows.evaluation import evaluate as workflow

    changes = read_changes("evaluate", {}, assignments=assignments or ())
    if predictions is not None and ground_truth is not None:
        outcome: EvaluateOutcome | ClassEvaluation = workflow.evaluate_folders(
            predictions, ground_truth, classes=classes.split(","), changes=changes, out=out
        )
    elif run_folder is not None:
        options = workflow.EvaluateOptions(
            dataset=flags["data.dataset"],
            data_dir=flags["data.data_dir"],
            split_name=split,
            tta=flags["predict.tta"],
            device=flags["train.device"],
            changes=changes,
        )
        score = evaluate_classifier if is_classifier_run(run_folder) else workflow.evaluate_run
        outcome = score(run_folder, options, out=out, progress=console.progress())
    console.print(outcome)
    if outcome.is_empty:
        raise typer.Exit(PARTIAL_SUCCESS)

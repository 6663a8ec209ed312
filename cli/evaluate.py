"""`segnetr evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from segnetr.config.load import read_changes
from segnetr.config.schema.classification import is_classifier_run
from segnetr.errors import UsageError

from . import options as o
from .console import print_result


def evaluate(
    run_folder: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="A run folder; its test part is scored.")
    ] = None,
    dataset: o.Dataset = None,
    data_dir: o.DataDir = None,
    part: Annotated[
        str | None, typer.Option("--part", help="Part of the split: train, validation, test.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Folder of masks to score.")
    ] = None,
    ground_truth: Annotated[
        Path | None, typer.Option("--ground truth", help="Folder of true masks.")
    ] = None,
    classes: Annotated[
        str, typer.Option("--classes", help="Class names for folders, background first.")
    ] = "background,foreground",
    tta: o.Tta = None,
    assignments: o.Set = None,
    device: o.Device = None,
    out: o.Out = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Score a run on its test part or another data set, or score a folder of masks.

    Example: segnetr evaluate runs/first --dataset isic2017 --data-dir DIR
    """
    del verbose
    if (run_folder is None) == (predictions is None) or (predictions is None) != (
        ground_truth is None
    ):
        raise UsageError("give either RUN, or --predictions DIR and --ground truth DIR")
    from segnetr.progress import Progress
    from segnetr.workflows.classification.evaluate import evaluate_classifier
    from segnetr.workflows.evaluation import evaluate as workflow
    from segnetr.workflows.outcome import Outcome

    progress = Progress(quiet=quiet or as_json)
    changes = read_changes("evaluate", {}, assignments=assignments or ())
    if predictions is not None and ground_truth is not None:
        outcome: Outcome = workflow.evaluate_folders(
            predictions, ground_truth, classes=classes.split(","), changes=changes, out=out
        )
    elif run_folder is not None:
        choice = workflow.EvaluateOptions(
            dataset=dataset, data_dir=data_dir, part=part, tta=tta, device=device, changes=changes
        )
        score = evaluate_classifier if is_classifier_run(run_folder) else workflow.evaluate_run
        outcome = score(run_folder, choice, out=out, progress=progress)
    print_result(outcome.to_dict(), as_json=as_json, text=str(outcome))

"""`segnetr report`."""

from pathlib import Path
from typing import Annotated

import typer

from segnetr.config.schema.classification import is_classifier_run

from . import options as o
from .console import print_result


def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: o.Out = None,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
) -> None:
    """Write a run's report.html again, from the files of the run.

    Example: segnetr report runs/first
    """
    del verbose
    from segnetr.engine.training.fold_dir import is_cross_validation
    from segnetr.workflows.classification.report import report_classifier
    from segnetr.workflows.evaluation.report import report as report_segmentation
    from segnetr.workflows.training.fold_report import report_folds

    if is_cross_validation(run_folder):
        path = report_folds(run_folder, out=out)
    elif is_classifier_run(run_folder):
        path = report_classifier(run_folder, out=out)
    else:
        path = report_segmentation(run_folder, out=out)
    print_result({"report": str(path)}, as_json=as_json, text=f"report: {path}")

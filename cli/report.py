"""`segnetr report`."""

from pathlib import Path
from typing import Annotated

import typer

from . import flags as f
from .command import Console, command


@command()
def report(
    console: Console,
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    out: f.Out = None,
) -> None:
    """Write the report.html of a run again from its files.

    Example: segnetr report runs/first
    """
    from segnetr.config.schema.classification import is_classifier_run
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
    console.print_facts({"report": str(path)}, f"report: {path}")

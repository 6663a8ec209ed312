"""`segnetr predict`."""

from pathlib import Path
from typing import Annotated

import typer

from segnetr.config.load import read_changes

from . import options as o
from .console import print_result

PARTIAL = 3


def predict(
    inputs: Annotated[
        list[Path], typer.Argument(help="Images, volumes, DICOM series, or folders of them.")
    ],
    model: o.ModelFolder,
    out: Annotated[Path, typer.Option("--out", help="Folder for the masks.")],
    tta: o.Tta = None,
    overlay: o.Overlay = False,
    save_prob: o.SaveProb = False,
    mask_format: o.MaskFormat = "same",
    series: o.Series = None,
    explain: o.Explain = False,
    device: o.Device = None,
    assignments: o.Set = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Segment images with a trained model; masks lie on the grid of the files.

    With a classifier: write a table of probabilities, and with --explain what they rest on.

    Example: segnetr predict photos/ --model runs/first --out masks --overlay
    """
    del verbose
    changes = read_changes("predict", {"tta": tta}, assignments=assignments or ())
    from segnetr.engine.progress import Progress
    from segnetr.outputs.classifier_file import is_classifier
    from segnetr.workflows.classify_predict import predict_classes
    from segnetr.workflows.predict import PredictOptions
    from segnetr.workflows.predict import predict as predict_masks

    choice = PredictOptions(
        changes=changes,
        overlay=overlay,
        save_prob=save_prob,
        explain=explain,
        format_name=mask_format,
        series=series,
        device=device or "auto",
    )
    run = predict_classes if is_classifier(model) else predict_masks
    outcome = run(inputs, model, out, choice, progress=Progress(quiet=quiet or as_json))
    print_result(outcome.facts(), as_json=as_json, text=outcome.text())
    raise typer.Exit(PARTIAL if outcome.failed else 0)

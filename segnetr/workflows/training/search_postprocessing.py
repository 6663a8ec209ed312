"""Search postprocessing settings on the validation cases, at the end of a training run."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segnetr.config.schema.segmentation import RunConfig
from segnetr.data.case import Case, DatasetSpec, Split
from segnetr.data.validation.ground_truth import read_case_ground_truth
from segnetr.engine.inference.postprocessing_search import (
    MIN_PATIENTS,
    PostprocessingSearch,
    ThresholdLabels,
)
from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import UsageError
from segnetr.outputs.models.model_file import read_model, write_model
from segnetr.progress import Progress
from segnetr.workflows.prediction.model_folder import open_model_input, open_predictor
from segnetr.workflows.training.run_setup import log_messages


def check_search_settings(config: RunConfig, split: Split) -> None:
    """Check before the training that a postprocessing search is possible.

    Raises:
        UsageError: If postprocessing is configured already, there is no validation case, or the
            validation cases are the cases that a fold is scored on.
    """
    settings = config.predict
    if not settings.search_postprocessing:
        return
    if settings.postprocessing or settings.threshold != 0.5:
        raise UsageError(
            "predict.search_postprocessing chooses predict.postprocessing and predict.threshold; "
            "give one or the other"
        )
    if config.data.fold is not None:
        raise UsageError(
            "predict.search_postprocessing with --fold would select settings on the same cases "
            "that the fold is scored on; remove one of them"
        )
    if not split.validation:
        raise UsageError(
            "predict.search_postprocessing needs validation cases; add --set "
            "data.validation_share=0.15"
        )


def search_postprocessing(
    run: RunDir,
    config: RunConfig,
    *,
    spec: DatasetSpec,
    cases: Sequence[Case],
    progress: Progress,
) -> None:
    """Try postprocessing steps on the validation cases, and add those that help to the model.

    Args:
        run: The run with a written model.
        config: Its configuration.
        spec: Description of the dataset, for reading masks.
        cases: The validation cases.
        progress: Shows the progress.

    Raises:
        ReadError: If a case cannot be read.
        WriteError: If the model cannot be written; the previous model is unchanged.
    """
    if not config.predict.search_postprocessing:
        return
    limit = config.data.max_pixels
    sizes: list[int] = []
    for case in cases:
        ground_truth = read_case_ground_truth(case, spec, max_pixels=limit).array
        counts = np.bincount(ground_truth.ravel(), minlength=len(spec.classes))[1:]
        sizes += [int(count) for count in counts if count]
    chooser = PostprocessingSearch(sizes)
    plain = {"search_postprocessing": False, "postprocessing": ()}
    card, predictor = open_predictor(run.path, changes=plain, device=config.train.device)
    with progress.task("postprocessing", len(cases)) as advance:
        for number, case in enumerate(cases, start=1):
            image = open_model_input(card, case.image, max_pixels=limit)
            labels_by_threshold = ThresholdLabels(image.grid, classes=len(spec.classes))
            predictor.predict(image, callback=labels_by_threshold)
            ground_truth = read_case_ground_truth(case, spec, max_pixels=limit).array
            chooser.add(
                case.case_id, labels_by_threshold.labels, ground_truth, classes=len(spec.classes)
            )
            advance(number, len(cases))
    patients = {case.case_id: case.patient_id for case in cases if case.patient_id}
    best, trials = chooser.choose(patients=patients, seed=config.evaluate.seed)
    card, weights = read_model(run.path)
    settings = replace(
        card.predict,
        threshold=best.threshold,
        postprocessing=best.steps,
        search_postprocessing=False,
    )
    write_model(
        run.model, weights, card=replace(card, predict=settings, postprocessing_trials=trials)
    )
    taken = [f"{trial.step} (+{trial.gain:.4f})" for trial in trials if trial.taken]
    line = "postprocessing selected on validation: " + (
        ", ".join(taken) or "no step improves the Dice significantly"
    )
    if trials[0].low is None:
        line += f"; fewer than {MIN_PATIENTS} patients"
    log_messages(run, [line], progress)

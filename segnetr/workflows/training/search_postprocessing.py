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
from segnetr.progress import LogFile, Progress
from segnetr.workflows.prediction.model_folder import open_image, open_predictor


def require_choice(config: RunConfig, split: Split) -> None:
    """Refuse, before anything is trained, to choose repairs where there is nothing to do so on.

    Raises:
        UsageError: If repairs are named already, there is no validation case, or the validation
            cases are those a fold is scored on.
    """
    settings = config.predict
    if not settings.search_postprocessing:
        return
    if settings.post or settings.threshold != 0.5:
        raise UsageError(
            "predict.search_postprocessing chooses predict.post and predict.threshold; give one or "
            "the other"
        )
    if config.data.fold is not None:
        raise UsageError(
            "predict.search_postprocessing with --fold would choose on the very cases that the "
            "fold is "
            "scored on; leave one of them out"
        )
    if not split.validation:
        raise UsageError(
            "predict.search_postprocessing needs validation cases; give --set "
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
    """Try repairs on the validation cases, and write those that help into the model.

    Args:
        run: The run, whose model is written.
        config: Its configuration.
        spec: How masks are read.
        cases: The validation cases.
        progress: What the user sees meanwhile.

    Raises:
        ReadError: If a case cannot be read.
        WriteError: If the model cannot be written again; the former one is then untouched.
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
    plain = {"search_postprocessing": False, "post": ()}
    card, predictor = open_predictor(run.path, changes=plain, device=config.train.device)
    with progress.task("repair", len(cases)) as advance:
        for number, case in enumerate(cases, start=1):
            image = open_image(card, case.image, max_pixels=limit)
            found = ThresholdLabels(image.grid, classes=len(spec.classes))
            predictor.predict(image, callback=found)
            ground_truth = read_case_ground_truth(case, spec, max_pixels=limit).array
            chooser.add(case.case_id, found.labels, ground_truth, classes=len(spec.classes))
            advance(number, len(cases))
    patients = {case.case_id: case.patient_id for case in cases if case.patient_id}
    repair, trials = chooser.choose(patients=patients, seed=config.evaluate.seed)
    card, weights = read_model(run.path)
    settings = replace(
        card.predict, threshold=repair.threshold, post=repair.steps, search_postprocessing=False
    )
    write_model(
        run.model, weights, card=replace(card, predict=settings, postprocessing_trials=trials)
    )
    taken = [f"{trial.step} (+{trial.gain:.4f})" for trial in trials if trial.taken]
    line = "repairs chosen on validation: " + (", ".join(taken) or "none helps for sure")
    if trials[0].low is None:
        line += f"; fewer than {MIN_PATIENTS} patients"
    progress.on_message(line)
    LogFile(run.log).on_message(line)

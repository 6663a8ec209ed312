"""`segnetr train`: train a segmentation network on a dataset, score it, and write a report."""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from torch import nn

from segnetr.config.load import IDENTITY_PARTS, config_identity, load_config
from segnetr.config.schema.segmentation import RunConfig, TrainConfig
from segnetr.data.case import SPLIT_NAMES, Case, Split
from segnetr.data.splits.content import CaseContent
from segnetr.data.splits.split_cases import divide
from segnetr.engine.training.finetuning import EncoderFinetuning
from segnetr.engine.training.random_state import seed_generators
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.runtime import Runtime
from segnetr.engine.training.trainer import Trainer, TrainResult
from segnetr.models.build import build_model, check_model
from segnetr.progress import Progress
from segnetr.workflows.datasets.audit import load_cached_duplicates
from segnetr.workflows.datasets.loading import OpenedDataset, open_dataset
from segnetr.workflows.evaluation.evaluate import (
    EvaluateOptions,
    EvaluateOutcome,
    evaluate_run,
    find_scored_split,
)
from segnetr.workflows.evaluation.report import report
from segnetr.workflows.prediction.model_folder import start_from, write_run_model
from segnetr.workflows.training.encoder_weights import load_encoder_weights, require_transferable
from segnetr.workflows.training.fit_quality import fit_quality
from segnetr.workflows.training.outcome import STOPPED_BY_SIGNAL, TrainOutcome
from segnetr.workflows.training.pipeline import TrainingPipeline, build_pipeline
from segnetr.workflows.training.resume import (
    CONTENT,
    AllowedChange,
    check_content,
    find_ignored_identity,
    record_content,
    reject_changed_settings,
)
from segnetr.workflows.training.run_setup import (
    create_run,
    finish_run,
    lock_run,
    log_messages,
    open_run,
    resume_split,
    update_config,
)
from segnetr.workflows.training.search_postprocessing import (
    check_search_settings,
    search_postprocessing,
)


def train(
    config: RunConfig,
    *,
    out: Path | None = None,
    resume: bool = False,
    allow_change: Collection[AllowedChange] = (),
    masks: Path | None = None,
    progress: Progress,
) -> TrainOutcome:
    """Train a network, score it on the original grid, and write the run and its report.

    Under `torchrun`, every process calls this function, and the first one writes.

    Args:
        config: The whole configuration; it is written into the run.
        out: The run folder; None: `runs/<dataset>/<architecture>/<date-time>`.
        resume: Continue the run in `out`.
        allow_change: What may differ from the run to resume.
        masks: With `data.fold`: save the predictions for the cases of this fold here.
        progress: Shows the progress.

    Raises:
        UsageError: If the dataset is missing, `out` is in use, there is nothing to resume, or
            settings or cases differ from those of the run to resume.
        DataError: If the dataset has issues and `data.skip_invalid` is not set.
    """
    run = open_run(
        out,
        resume=resume,
        dataset=config.data.dataset,
        network=name_network(config),
        device=config.train.device,
    )
    with lock_run(run, progress):
        return _train(
            run, config, resume=resume, allow=allow_change, masks=masks, progress=progress
        )


def _train(
    run: RunDir,
    config: RunConfig,
    *,
    resume: bool,
    allow: Collection[AllowedChange],
    masks: Path | None,
    progress: Progress,
) -> TrainOutcome:
    """Train in a folder that this process has locked."""
    check_model(config.model)
    if resume:
        load = partial(load_config, [run.config])
        reject_changed_settings(run, config, load=load, parts=IDENTITY_PARTS)
    pipeline = build_pipeline(open_dataset(config.data), config)
    model = _build_network(pipeline)
    # The checkpoint of a resumed run contains all weights.
    messages = [] if resume else _load_start_weights(model, config.train)
    issues = pipeline.cache_cases(progress)
    cases = pipeline.cases
    with Runtime(config.train.device, amp=config.train.amp) as runtime:
        split = resume_split(run, cases) if resume else divide(cases, config.data)
        check_search_settings(config, split)
        content = pipeline.hash_cases(split)
        messages += check_content(run, content, allow=allow) if resume else []
        runtime.wait()  # all processes have compared the cases before the hashes are replaced
        if runtime.is_main:
            dataset = _describe_dataset(pipeline.opened)
            if not resume:
                dataset["leaks"] = _find_leakage(cases, split, config, progress)
            create_run(
                run,
                config,
                resume=resume,
                device=config.train.device,
                dataset=dataset,
                issues=issues,
                split=split,
            )
            record_content(run, content, resume=resume)
            log_messages(run, messages, progress)
        pipeline.on_message = lambda line: log_messages(run, [line], progress)
        trainer = _build_trainer(
            run,
            pipeline,
            split,
            runtime,
            progress,
            model=model,
            content=content,
            may_differ=find_ignored_identity(run, allow=allow),
        )
        result = trainer.fit(resume=resume)
        if resume and runtime.is_main:
            update_config(run, config)
        if result.stopped in STOPPED_BY_SIGNAL or not runtime.is_main:
            return TrainOutcome(run=run.path, result=result, evaluation=None, report=None)
        write_run_model(run, config, spec=pipeline.spec, split=split, result=result)
    return _finish(run, pipeline, split, result, progress, masks=masks)


def _finish(
    run: RunDir,
    pipeline: TrainingPipeline,
    split: Split,
    result: TrainResult,
    progress: Progress,
    *,
    masks: Path | None,
) -> TrainOutcome:
    """Tune the model on the validation cases, score it, and write the report."""
    config, spec, cases = pipeline.config, pipeline.spec, pipeline.cases
    validation = split.select(cases, "validation")
    search_postprocessing(run, config, spec=spec, cases=validation, progress=progress)
    fit_quality(
        run,
        config,
        spec=spec,
        training=split.select(cases, "train"),
        validation=validation,
        progress=progress,
    )
    # The test cases are scored once, by the ensemble of all folds.
    split_name = "validation" if config.data.fold is not None else find_scored_split(run)
    options = EvaluateOptions(split_name=split_name, device=config.train.device, masks=masks)

    def evaluate() -> EvaluateOutcome:
        return evaluate_run(run.path, options, out=run.evaluation, progress=progress)

    return finish_run(run, result, evaluate=evaluate if split_name else None, report=report)


def name_network(config: RunConfig) -> str:
    """Return the name of a network for the folder of its runs."""
    encoder = getattr(config.model, "encoder", "segnetr")
    name: str = config.model.architecture
    return name if encoder == "segnetr" else f"{name}-{encoder.replace(':', '-')}"


def _find_leakage(
    cases: Sequence[Case], split: Split, config: RunConfig, progress: Progress
) -> list[str] | None:
    """List duplicate images in different splits; None if no audit has compared all images."""
    names = {case_id: str(name) for name in SPLIT_NAMES for case_id in split.ids(name)}
    leaks = load_cached_duplicates(cases, names, config.data)
    if leaks:
        progress.on_message(
            f"{len(leaks)} pairs of duplicate images are in two different splits, so the scores "
            "are too high (see segnetr data audit)"
        )
    return None if leaks is None else [str(leak) for leak in leaks]


def _describe_dataset(opened: OpenedDataset) -> dict[str, object]:
    return {
        "name": opened.spec.name,
        "title": opened.spec.title,
        "cases": len(opened.cases),
        "source": opened.spec.source,
        "license": opened.spec.license,
    }


def _build_network(pipeline: TrainingPipeline) -> nn.Module:
    config = pipeline.config
    seed_generators(config.train.seed)
    return build_model(
        config.model,
        in_channels=pipeline.in_channels,
        num_classes=pipeline.num_classes,
        image_size=config.train.image_size,
    )


def _load_start_weights(model: nn.Module, settings: TrainConfig) -> list[str]:
    """Load the weights of an earlier training into the network, and return messages about it."""
    if settings.weights is not None:
        start_from(model, settings.weights)
    if settings.encoder_weights is None:
        return []
    transfer = load_encoder_weights(
        model, settings.encoder_weights, accept_partial=settings.accept_partial
    )
    return transfer.lines()


def _configure_finetuning(model: nn.Module, config: TrainConfig) -> EncoderFinetuning | None:
    """Return how the encoder is trained, or None if it is trained like the rest."""
    factor, decay = config.encoder_lr_factor, config.encoder_layer_decay
    if factor == 1 and decay == 1 and not config.freeze_encoder_epochs:
        return None
    return EncoderFinetuning(
        module=require_transferable(model, "train.encoder_* and train.freeze_encoder_epochs"),
        lr_factor=factor,
        layer_decay=decay,
        frozen_epochs=config.freeze_encoder_epochs,
    )


def _build_trainer(
    run: RunDir,
    pipeline: TrainingPipeline,
    split: Split,
    runtime: Runtime,
    progress: Progress,
    *,
    model: nn.Module,
    content: CaseContent,
    may_differ: Collection[str],
) -> Trainer:
    config = pipeline.config
    samples = pipeline.list_samples(split)
    return Trainer(
        model,
        pipeline.build_task(device=str(runtime.device)),
        config=config.train,
        run=run,
        cases=len(samples),
        train_batches=pipeline.load_training(samples, runtime),
        validation_batches=pipeline.load_validation(split),
        identity={
            **config_identity(config),
            "split": split.sha256[:16],
            CONTENT: content.sha256[:16],
        },
        may_differ=may_differ,
        progress=progress,
        runtime=runtime,
        encoder=_configure_finetuning(model, config.train),
    )

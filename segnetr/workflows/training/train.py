"""`segnetr train`: from a folder of images to a run with a model, scores and a report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from torch import nn

from segnetr.config.load import config_identity
from segnetr.config.schema.segmentation import RunConfig, TrainConfig
from segnetr.data.augmentation.transforms import evaluation_transform, training_transform
from segnetr.data.cache.segmentation import CachedCase, build_cache
from segnetr.data.case import SPLIT_NAMES, Batch, Case, DatasetSpec, Split
from segnetr.data.loading.loaders import Sample, evaluation_loader, training_loader
from segnetr.data.loading.sampler import ResumableSampler
from segnetr.data.splits.patients import check_patients
from segnetr.data.splits.split import write_split
from segnetr.data.splits.split_cases import divide
from segnetr.data.validation.audit import Issue, check_pairs
from segnetr.engine.training.finetuning import EncoderFinetuning
from segnetr.engine.training.optim import count_steps
from segnetr.engine.training.random_state import seed_generators
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.runtime import Runtime
from segnetr.engine.training.trainer import Trainer, TrainResult
from segnetr.errors import DataError, UsageError
from segnetr.models.build import build_model, check_model
from segnetr.progress import LogFile, Progress
from segnetr.storage.manifest import write_json
from segnetr.workflows.datasets.audit import load_cached_leaks
from segnetr.workflows.datasets.loading import OpenedDataset, open_dataset
from segnetr.workflows.evaluation.evaluate import EvaluateOptions, choose_part, evaluate_run
from segnetr.workflows.evaluation.report import report
from segnetr.workflows.prediction.model_folder import start_from, write_run_model
from segnetr.workflows.training.encoder_weights import load_encoder_weights, require_transferable
from segnetr.workflows.training.fit_quality import fit_quality
from segnetr.workflows.training.outcome import STOPPED_BY_SIGNAL, TrainOutcome
from segnetr.workflows.training.pipeline import (
    build_task,
    check_settings,
    choose_cache_settings,
    count_channels,
    cuts_windows,
    list_samples,
    load_validation_volumes,
)
from segnetr.workflows.training.run_setup import (
    default_run_folder,
    describe_run,
    explain_issues,
    resume_split,
    setup_process,
)
from segnetr.workflows.training.search_postprocessing import require_choice, search_postprocessing


def train(
    config: RunConfig,
    *,
    out: Path | None = None,
    resume: bool = False,
    masks: Path | None = None,
    progress: Progress,
) -> TrainOutcome:
    """Train a network on a data set, score it on the original grid, write run and report.

    Under `torchrun` every process calls this; the first one writes.

    Args:
        config: The whole configuration; it is written into the run.
        out: The run folder; None: `runs/<dataset>/<architecture>/<date-time>`.
        resume: Go on with the run in `out`.
        masks: With `data.fold`: keep the predictions of that fold's cases here.
        progress: What the user sees meanwhile.

    Raises:
        UsageError: If the data set is not there, `out` is in use, or there is nothing to resume.
        DataError: If the data set has issues and `data.skip_invalid` is not set.
    """
    if resume and out is None:
        raise UsageError("--resume needs --out: the folder of the run to go on with")
    run = RunDir(out or default_run_folder(config.data.dataset, name_network(config)))
    run.check(resume=resume)
    setup_process(config.train.device)
    check_model(config.model)
    opened = open_dataset(config.data)
    check_settings(opened.spec, config)
    model = _build_network(config, opened.spec)
    # A resumed run has all weights in its checkpoint.
    taken_over = [] if resume else _start_network(model, config.train)
    entries, issues = _prepare_data(opened, config, progress)
    with Runtime(config.train.device, amp=config.train.amp) as runtime:
        usable = [case for case in opened.cases if case.case_id in entries]
        split = resume_split(run, usable) if resume else divide(usable, config.data)
        require_choice(config, split)
        if runtime.is_main:
            run.create(resume=resume)
            if not resume:
                leaks = _look_for_leaks(usable, split, config, progress)
                _describe(run, config, opened, issues, leaks=leaks)
                write_split(split, run.splits)
            for line in taken_over:
                progress.on_message(line)
                LogFile(run.log).on_message(line)
        trainer = _build_trainer(
            run, config, opened, entries, split, runtime, progress, model=model
        )
        result = trainer.fit(resume=resume)
        if result.stopped in STOPPED_BY_SIGNAL or not runtime.is_main:
            return TrainOutcome(run=run.path, result=result, evaluation=None, report=None)
        write_run_model(run, config, spec=opened.spec, split=split, result=result)
    validation = split.select(usable, "validation")
    search_postprocessing(run, config, spec=opened.spec, cases=validation, progress=progress)
    fit_quality(
        run,
        config,
        spec=opened.spec,
        training=split.select(usable, "train"),
        validation=validation,
        progress=progress,
    )
    return _finish(run, config, result, progress, masks=masks)


def _finish(
    run: RunDir,
    config: RunConfig,
    result: TrainResult,
    progress: Progress,
    *,
    masks: Path | None,
) -> TrainOutcome:
    write_json(run.timings, {"seconds": round(result.seconds, 3), "steps": result.steps})
    evaluation = None
    # The test part is kept for all folds together.
    part = "validation" if config.data.fold is not None else choose_part(run)
    if part is not None:
        options = EvaluateOptions(part=part, device=config.train.device, masks=masks)
        evaluation = evaluate_run(run.path, options, out=run.evaluation, progress=progress)
    page = report(run.path)
    return TrainOutcome(run=run.path, result=result, evaluation=evaluation, report=page)


def name_network(config: RunConfig) -> str:
    """Give the name of a network for the folder of its runs."""
    encoder = getattr(config.model, "encoder", "segnetr")
    name: str = config.model.architecture
    return name if encoder == "segnetr" else f"{name}-{encoder.replace(':', '-')}"


def _prepare_data(
    opened: OpenedDataset, config: RunConfig, progress: Progress
) -> tuple[dict[str, CachedCase], list[Issue]]:
    """Decode what was never decoded, and refuse a data set with issues."""
    issues = check_pairs(opened.cases) + check_patients(opened.cases)
    named = {issue.case_id for issue in issues}
    whole = [case for case in opened.cases if case.case_id not in named]
    settings = choose_cache_settings(opened.spec, config)
    with progress.task("decode", len(whole)) as advance:
        cache = build_cache(
            whole,
            settings,
            folder=config.data.cache_dir,
            workers=config.data.workers,
            progress=advance,
        )
    issues += cache.issues
    if issues and not config.data.skip_invalid:
        raise DataError(_explain_issues(issues, opened))
    if not cache.entries:
        raise DataError(f"{opened.root}: no case of {opened.spec.name} is without a issue")
    return dict(cache.entries), issues


def _explain_issues(issues: Sequence[Issue], opened: OpenedDataset) -> str:
    return (
        f"{explain_issues(issues, opened.root)}. See all with `segnetr data check "
        f"--dataset {opened.spec.name}`, or train without them: --skip-invalid"
    )


def _look_for_leaks(
    cases: Sequence[Case], split: Split, config: RunConfig, progress: Progress
) -> list[str] | None:
    """Name the images that lie in two parts, where an audit has looked at all of them before."""
    parts = {case_id: str(name) for name in SPLIT_NAMES for case_id in split.ids(name)}
    leaks = load_cached_leaks(cases, parts, config.data)
    if leaks:
        progress.on_message(
            f"{len(leaks)} pairs of alike images lie in two parts of the split: scores promise "
            "too much (segnetr data audit)"
        )
    return None if leaks is None else [str(leak) for leak in leaks]


def _describe(
    run: RunDir,
    config: RunConfig,
    opened: OpenedDataset,
    issues: Sequence[Issue],
    *,
    leaks: Sequence[str] | None,
) -> None:
    facts = {
        "name": opened.spec.name,
        "title": opened.spec.title,
        "cases": len(opened.cases),
        "source": opened.spec.source,
        "license": opened.spec.license,
        "leaks": leaks,
    }
    describe_run(run, config, device=config.train.device, dataset=facts, issues=issues)


def _build_network(config: RunConfig, spec: DatasetSpec) -> nn.Module:
    seed_generators(config.train.seed)
    return build_model(
        config.model,
        in_channels=count_channels(spec, config),
        num_classes=len(spec.classes),
        image_size=config.train.image_size,
    )


def _start_network(model: nn.Module, settings: TrainConfig) -> list[str]:
    """Put weights of earlier trainings into the network; give lines that say which."""
    if settings.weights is not None:
        start_from(model, settings.weights)
    if settings.encoder_weights is None:
        return []
    report = load_encoder_weights(
        model, settings.encoder_weights, accept_partial=settings.accept_partial
    )
    return list(report.lines())


def _encoder_training(model: nn.Module, config: TrainConfig) -> EncoderFinetuning | None:
    """Say how the encoder is trained, where anything about it differs from the rest."""
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
    config: RunConfig,
    opened: OpenedDataset,
    entries: Mapping[str, CachedCase],
    split: Split,
    runtime: Runtime,
    progress: Progress,
    *,
    model: nn.Module,
) -> Trainer:
    spec = opened.spec
    trained_on = list_samples(spec, config, [entries[case_id] for case_id in split.train])
    return Trainer(
        model,
        build_task(spec, config, device=str(runtime.device)),
        config=config.train,
        run=run,
        cases=len(trained_on),
        train_batches=_load_training(config, trained_on, spec, runtime),
        validation_batches=_load_validation(config, opened, entries, split),
        identity={**config_identity(config), "split": split.sha256[:16]},
        progress=progress,
        runtime=runtime,
        encoder=_encoder_training(model, config.train),
    )


def _load_training(
    config: RunConfig, entries: Sequence[Sample], spec: DatasetSpec, runtime: Runtime
) -> Callable[[int], Iterable[Batch]]:
    settings = config.train
    total = count_steps(settings, cases=len(entries), world=runtime.world)
    transform = training_transform(
        config.augment,
        image_size=settings.image_size,
        intensity=config.data.intensity,
        channels=count_channels(spec, config),
        color=spec.spatial_dims == 2,
        crop=cuts_windows(spec, config),
    )

    def load(start_step: int) -> Iterable[Batch]:
        sampler = ResumableSampler(
            len(entries),
            batch_size=settings.batch_size,
            seed=settings.seed,
            rank=runtime.rank,
            world=runtime.world,
            start_step=start_step * settings.accumulate,
            steps=total * settings.accumulate,
        )
        return training_loader(
            entries, transform, sampler=sampler, workers=config.data.workers, seed=settings.seed
        )

    return load


def _load_validation(
    config: RunConfig, opened: OpenedDataset, entries: Mapping[str, CachedCase], split: Split
) -> Callable[[], Iterable[Batch]] | None:
    if not split.validation:
        return None
    spec, size = opened.spec, config.train.image_size
    if spec.spatial_dims == 3:
        volumes = split.select(opened.cases, "validation")
        return load_validation_volumes(spec, config, volumes)
    images = [entries[case_id] for case_id in split.validation]
    transform = evaluation_transform(size, config.data.intensity, spec.in_channels)
    return lambda: evaluation_loader(
        images, transform, batch_size=config.train.batch_size, workers=0
    )

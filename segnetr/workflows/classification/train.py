"""`segnetr classify`: from labeled images to a run with a classifier, scores and a report."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from segnetr.config.load import config_identity
from segnetr.config.schema.classification import ClassifyConfig
from segnetr.data.augmentation.mixup import BatchMixer
from segnetr.data.cache.classification import ImageSettings, cache_images
from segnetr.data.case import Batch, Split
from segnetr.data.classification.case import (
    ClassificationCase,
    ClassificationSet,
    check_classes,
    check_training_classes,
    count_labels,
    encode_labels,
)
from segnetr.data.classification.loaders import (
    ClassificationDataset,
    EvalTransform,
    TrainTransform,
    Transform,
    classification_evaluation_batches,
    classification_training_batches,
)
from segnetr.data.classification.open import open_classification_set
from segnetr.data.loading.loaders import ResumableSampler
from segnetr.data.splits.split import write_split
from segnetr.data.validation.audit import Issue
from segnetr.engine.training.classification import ClassificationTask, balance_classes
from segnetr.engine.training.layer_rates import layer_factors
from segnetr.engine.training.optim import count_steps
from segnetr.engine.training.random_state import seed_generators
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.runtime import Runtime
from segnetr.engine.training.trainer import Trainer, TrainResult
from segnetr.errors import DataError, UsageError
from segnetr.progress import Progress
from segnetr.workflows.classification.evaluate import evaluate_classifier
from segnetr.workflows.classification.network import (
    build_backbone,
    check_backbone,
    start_from_published,
    start_from_run,
    write_run_classifier,
)
from segnetr.workflows.classification.report import report_classifier
from segnetr.workflows.evaluation.evaluate import EvaluateOptions, choose_part
from segnetr.workflows.training.outcome import STOPPED_BY_SIGNAL, TrainOutcome
from segnetr.workflows.training.run_setup import (
    choose_split,
    default_run_folder,
    describe_run,
    explain_issues,
    setup_process,
)

_IDENTITY = ("data", "augment", "mixing", "regularization", "backbone", "train")
# Copies keep a little more than the network sees, for crops.
_SPARE = 1.25


def classify(
    config: ClassifyConfig, *, out: Path | None = None, resume: bool = False, progress: Progress
) -> TrainOutcome:
    """Train a backbone as a classifier, score it on the test part, write run and report.

    Under `torchrun` every process calls this; the first one writes.

    Args:
        config: The whole configuration; it is written into the run.
        out: The run folder; None: `runs/<dataset>/<backbone>/<date-time>`.
        resume: Go on with the run in `out`.
        progress: What the user sees meanwhile.

    Raises:
        UsageError: If backbone or data are not there, `out` is in use, or there is nothing to
            resume.
        DataError: If the data cannot be learned from, or have issues and
            `data.skip_invalid` is not set.
        ModelFileError: If weights to start from cannot be trusted or do not fit.
    """
    if resume and out is None:
        raise UsageError("--resume needs --out: the folder of the run to go on with")
    run = RunDir(out or default_run_folder(config.data.dataset, config.backbone.name))
    run.check(resume=resume)
    setup_process(config.train.device)
    check_backbone(config)
    opened, issues = prepare_images(open_classification_set(config.data), config, progress)
    with Runtime(config.train.device, amp=config.train.amp) as runtime:
        split = choose_split(run, opened.cases, config.data, resume=resume, strata=opened.strata)
        trained_on = split.select(opened.cases, "train")
        check_training_classes(trained_on, classes=opened.classes, kind=opened.kind)
        _check_monitor(config, opened, split.select(opened.cases, "validation"))
        trainer = _build_trainer(run, config, opened, split, runtime, progress, resume=resume)
        if runtime.is_main:
            run.create(resume=resume)
            if not resume:
                _describe(run, config, opened, issues)
                write_split(split, run.splits)
        result = trainer.fit(resume=resume)
        if result.stopped in STOPPED_BY_SIGNAL or not runtime.is_main:
            return TrainOutcome(run=run.path, result=result, evaluation=None, report=None)
        write_run_classifier(run, config, opened=opened, split=split, result=result)
    return _finish(run, config, result, progress)


def _check_monitor(
    config: ClassifyConfig, opened: ClassificationSet, cases: Sequence[ClassificationCase]
) -> None:
    """Refuse a monitored score that the validation cases do not define, before the training."""
    counts = count_labels(cases, classes=len(opened.classes))
    if config.train.monitor == "auroc" and cases and not any(0 < n < len(cases) for n in counts):
        raise UsageError(
            f"train.monitor auroc: the {len(cases)} validation cases are all of one class; use "
            "--set train.monitor=loss, or raise data.validation_share"
        )


def prepare_images(
    opened: ClassificationSet, config: ClassifyConfig, progress: Progress
) -> tuple[ClassificationSet, list[Issue]]:
    """Decode what was never decoded, and refuse a data set with issues.

    Returns:
        The data set with copies in the place of files, without the cases that have issues; and
        these issues.

    Raises:
        DataError: If there are issues and `data.skip_invalid` is not set.
    """
    issues = list(opened.issues)
    cases = opened.cases
    files = [(case.case_id, case.image) for case in cases if isinstance(case.image, Path)]
    if files and config.data.cache:
        side = round(max(config.train.image_size) * _SPARE / config.augment.evaluation_crop)
        settings = ImageSettings(
            side=side, channels=opened.in_channels, max_pixels=config.data.max_pixels
        )
        with progress.task("decode", len(files)) as advance:
            copies, broken = cache_images(
                files,
                settings,
                folder=config.data.cache_dir,
                workers=config.data.workers,
                progress=advance,
            )
        issues += broken
        bad = {issue.case_id for issue in broken}
        cases = tuple(
            replace(case, image=copies.get(case.case_id, case.image))
            for case in cases
            if case.case_id not in bad
        )
    root = config.data.data_dir or Path()
    if issues and not config.data.skip_invalid:
        raise DataError(f"{explain_issues(issues, root)}. Train without them: --skip-invalid")
    left = replace(opened, cases=cases)
    check_classes(left, root)
    return left, issues


def _finish(
    run: RunDir, config: ClassifyConfig, result: TrainResult, progress: Progress
) -> TrainOutcome:
    evaluation = None
    if choose_part(run) is not None:
        options = EvaluateOptions(device=config.train.device)
        evaluation = evaluate_classifier(run.path, options, progress=progress)
    page = report_classifier(run.path)
    return TrainOutcome(run=run.path, result=result, evaluation=evaluation, report=page)


def _describe(
    run: RunDir, config: ClassifyConfig, opened: ClassificationSet, issues: Sequence[Issue]
) -> None:
    facts = {
        "name": opened.name,
        "title": opened.title,
        "cases": len(opened.cases),
        "classes": list(opened.classes),
        "source": opened.source,
        "license": opened.license,
        "facts": dict(opened.facts),
    }
    describe_run(run, config, device=config.train.device, dataset=facts, issues=issues)


def _build_trainer(
    run: RunDir,
    config: ClassifyConfig,
    opened: ClassificationSet,
    split: Split,
    runtime: Runtime,
    progress: Progress,
    *,
    resume: bool,
) -> Trainer:
    seed_generators(config.train.seed)
    classes = len(opened.classes)
    network = build_backbone(
        config.backbone,
        in_channels=opened.in_channels,
        num_classes=classes,
        drop_path=config.regularization.drop_path,
    )
    if not resume:
        notes = []
        if config.backbone.pretrained is not None:
            notes += start_from_published(network, config.backbone.pretrained)
        if config.train.weights is not None:
            notes += start_from_run(network, config.train.weights)
        for note in notes:
            progress.on_message(note)
    trained_on = split.select(opened.cases, "train")
    labels = torch.from_numpy(encode_labels(trained_on, classes=classes, kind=opened.kind))
    task = ClassificationTask(
        num_classes=classes,
        several=opened.kind == "multi",
        label_smoothing=config.regularization.label_smoothing,
        class_weights=_weigh_classes(config, labels, opened),
        monitor=config.train.monitor,
    )
    return Trainer(
        network,
        task,
        config=config.train,
        run=run,
        cases=len(trained_on),
        train_batches=_load_training(config, opened, trained_on, labels, runtime),
        validation_batches=_load_validation(
            config, opened, split.select(opened.cases, "validation")
        ),
        identity={
            **config_identity(config, parts=_IDENTITY),
            "split": split.sha256[:16],
            "labels": opened.labels_sha256[:16],
        },
        progress=progress,
        runtime=runtime,
        lr_factors=layer_factors(network, decay=config.regularization.layer_decay),
    )


def _weigh_classes(
    config: ClassifyConfig, labels: Tensor, opened: ClassificationSet
) -> Tensor | None:
    wanted = config.regularization.class_weights
    if wanted == "none":
        return None
    if wanted == "balanced":
        return balance_classes(
            labels, num_classes=len(opened.classes), several=opened.kind == "multi"
        )
    if len(wanted) != len(opened.classes):
        raise UsageError(
            f"regularization.class_weights has {len(wanted)} numbers for {len(opened.classes)} "
            f"classes ({', '.join(opened.classes)})"
        )
    return torch.tensor(wanted, dtype=torch.float32)


def _load_training(
    config: ClassifyConfig,
    opened: ClassificationSet,
    cases: Sequence[ClassificationCase],
    labels: Tensor,
    runtime: Runtime,
) -> Callable[[int], Iterable[Batch]]:
    settings = config.train
    total = count_steps(settings, cases=len(cases), world=runtime.world)
    change = TrainTransform(
        config.augment, image_size=settings.image_size, channels=opened.in_channels
    )
    images = _make_images(config, opened, cases, change)
    mixing = config.mixing
    mixer = (
        BatchMixer(mixing, len(opened.classes))
        if mixing.mixup_alpha or mixing.cutmix_alpha
        else None
    )
    balanced = config.regularization.balanced_sampling
    if balanced and opened.kind == "multi":
        raise UsageError(
            "regularization.balanced_sampling needs one label a image; for several, use "
            "--set regularization.class_weights=balanced"
        )

    def load(start_step: int) -> Iterable[Batch]:
        sampler = ResumableSampler(
            len(cases),
            batch_size=settings.batch_size,
            seed=settings.seed,
            rank=runtime.rank,
            world=runtime.world,
            start_step=start_step * settings.accumulate,
            steps=total * settings.accumulate,
            labels=labels.tolist() if balanced else None,
        )
        return classification_training_batches(
            images,
            sampler=sampler,
            workers=config.data.workers,
            mixer=mixer,
            cases_per_step=settings.batch_size * runtime.world,
        )

    return load


def _load_validation(
    config: ClassifyConfig, opened: ClassificationSet, cases: Sequence[ClassificationCase]
) -> Callable[[], Iterable[Batch]] | None:
    if not cases:
        return None
    fit = EvalTransform(config.augment, image_size=config.train.image_size)
    images = _make_images(config, opened, cases, fit)
    return lambda: classification_evaluation_batches(
        images, batch_size=config.predict.batch_size, workers=0
    )


def _make_images(
    config: ClassifyConfig,
    opened: ClassificationSet,
    cases: Sequence[ClassificationCase],
    change: Transform,
) -> ClassificationDataset:
    return ClassificationDataset(
        cases,
        classes=len(opened.classes),
        kind=opened.kind,
        channels=opened.in_channels,
        max_pixels=config.data.max_pixels,
        transform=change,
        intensity=config.data.intensity,
        seed=config.train.seed,
    )

"""`segnetr classify`: train a classifier on labeled images, score it, and write a report."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from segnetr.config.load import config_identity
from segnetr.config.schema.classification import ClassifyConfig, load_classify_config
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
from segnetr.data.classification.content import hash_images
from segnetr.data.classification.loaders import (
    ClassificationDataset,
    EvalTransform,
    ImageTransform,
    TrainTransform,
    classification_evaluation_batches,
    classification_training_batches,
)
from segnetr.data.classification.open import open_classification_set
from segnetr.data.splits.content import CaseContent
from segnetr.data.validation.audit import Issue
from segnetr.engine.training.classification import ClassificationTask, balance_classes
from segnetr.engine.training.optim import layer_factors
from segnetr.engine.training.random_state import seed_generators
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.runtime import Runtime
from segnetr.engine.training.trainer import Trainer
from segnetr.errors import UsageError
from segnetr.progress import Progress
from segnetr.workflows.classification.evaluate import ClassEvaluation, evaluate_classifier
from segnetr.workflows.classification.network import (
    build_backbone,
    check_backbone,
    load_pretrained,
    load_run_weights,
    write_run_classifier,
)
from segnetr.workflows.classification.report import report_classifier
from segnetr.workflows.evaluation.evaluate import EvaluateOptions, find_scored_split
from segnetr.workflows.training.outcome import STOPPED_BY_SIGNAL, TrainOutcome
from segnetr.workflows.training.resume import (
    CONTENT,
    AllowedChange,
    check_content,
    find_ignored_identity,
    record_content,
    reject_changed_settings,
)
from segnetr.workflows.training.run_setup import (
    build_sampler,
    choose_split,
    create_run,
    finish_run,
    lock_run,
    log_messages,
    open_run,
    reject_issues,
    update_config,
)

_IDENTITY = ("data", "augment", "mixing", "regularization", "backbone", "train")
# Cached copies are a little larger than the input of the network, for random crops.
_SPARE = 1.25


def classify(
    config: ClassifyConfig,
    *,
    out: Path | None = None,
    resume: bool = False,
    allow_change: Collection[AllowedChange] = (),
    progress: Progress,
) -> TrainOutcome:
    """Train a backbone as a classifier, score it on the test cases, and write run and report.

    Under `torchrun`, every process calls this function, and the first one writes.

    Args:
        config: The whole configuration; it is written into the run.
        out: The run folder; None: `runs/<dataset>/<backbone>/<date-time>`.
        resume: Continue the run in `out`.
        allow_change: What may differ from the run to resume.
        progress: Shows the progress.

    Raises:
        UsageError: If the backbone or the data is missing, `out` is in use, there is nothing to
            resume, or settings or cases differ from those of the run to resume.
        DataError: If the data is not suitable for training, or has issues and
            `data.skip_invalid` is not set.
        ModelFileError: If the weights to start from are not safe or do not fit.
    """
    run = open_run(
        out,
        resume=resume,
        dataset=config.data.dataset,
        network=config.backbone.name,
        device=config.train.device,
    )
    with lock_run(run, progress):
        return _classify(run, config, resume=resume, allow=allow_change, progress=progress)


def _classify(
    run: RunDir,
    config: ClassifyConfig,
    *,
    resume: bool,
    allow: Collection[AllowedChange],
    progress: Progress,
) -> TrainOutcome:
    """Train in a folder that this process has locked."""
    check_backbone(config)
    if resume:
        load = partial(load_classify_config, [run.config])
        reject_changed_settings(run, config, load=load, parts=_IDENTITY)
    opened, issues = prepare_images(open_classification_set(config.data), config, progress)
    with Runtime(config.train.device, amp=config.train.amp) as runtime:
        split = choose_split(run, opened.cases, config.data, resume=resume, strata=opened.strata)
        training_cases = split.select(opened.cases, "train")
        check_training_classes(training_cases, classes=opened.classes, kind=opened.kind)
        _check_monitor(config, opened, split.select(opened.cases, "validation"))
        content = hash_images(opened.cases, split)
        messages = check_content(run, content, allow=allow) if resume else []
        trainer = _build_trainer(
            run,
            config,
            opened,
            split,
            runtime,
            progress,
            resume=resume,
            content=content,
            may_differ=find_ignored_identity(run, allow=allow),
        )
        runtime.wait()  # all processes have compared the cases before the hashes are replaced
        if runtime.is_main:
            create_run(
                run,
                config,
                resume=resume,
                device=config.train.device,
                dataset=_describe_dataset(opened),
                issues=issues,
                split=split,
            )
            record_content(run, content, resume=resume)
            log_messages(run, messages, progress)
        result = trainer.fit(resume=resume)
        if resume and runtime.is_main:
            update_config(run, config)
        if result.stopped in STOPPED_BY_SIGNAL or not runtime.is_main:
            return TrainOutcome(run=run.path, result=result, evaluation=None, report=None)
        write_run_classifier(run, config, opened=opened, split=split, result=result)

    def evaluate() -> ClassEvaluation:
        options = EvaluateOptions(device=config.train.device)
        return evaluate_classifier(run.path, options, progress=progress)

    return finish_run(
        run, result, evaluate=evaluate if find_scored_split(run) else None, report=report_classifier
    )


def _check_monitor(
    config: ClassifyConfig, opened: ClassificationSet, cases: Sequence[ClassificationCase]
) -> None:
    """Reject a monitored score that is undefined for the validation cases, before the training."""
    counts = count_labels(cases, classes=len(opened.classes))
    if config.train.monitor == "auroc" and cases and not any(0 < n < len(cases) for n in counts):
        raise UsageError(
            f"train.monitor auroc: the {len(cases)} validation cases are all of one class; use "
            "--set train.monitor=loss, or raise data.validation_share"
        )


def prepare_images(
    opened: ClassificationSet, config: ClassifyConfig, progress: Progress
) -> tuple[ClassificationSet, list[Issue]]:
    """Decode the images that are not in the cache yet.

    Returns:
        The dataset without the cases that have issues, with cached copies instead of files; and
        the issues.

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
    reject_issues(
        issues,
        root,
        skip_invalid=config.data.skip_invalid,
        advice="Train without them: --skip-invalid",
    )
    usable = replace(opened, cases=cases)
    check_classes(usable, root)
    return usable, issues


def _describe_dataset(opened: ClassificationSet) -> dict[str, object]:
    return {
        "name": opened.name,
        "title": opened.title,
        "cases": len(opened.cases),
        "classes": list(opened.classes),
        "source": opened.source,
        "license": opened.license,
        "facts": dict(opened.facts),
    }


def _build_trainer(
    run: RunDir,
    config: ClassifyConfig,
    opened: ClassificationSet,
    split: Split,
    runtime: Runtime,
    progress: Progress,
    *,
    resume: bool,
    content: CaseContent,
    may_differ: Collection[str],
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
            notes += load_pretrained(network, config.backbone.pretrained)
        if config.train.weights is not None:
            notes += load_run_weights(network, config.train.weights)
        for note in notes:
            progress.on_message(note)
    training_cases = split.select(opened.cases, "train")
    labels = torch.from_numpy(encode_labels(training_cases, classes=classes, kind=opened.kind))
    task = ClassificationTask(
        num_classes=classes,
        multi_label=opened.kind == "multi",
        label_smoothing=config.regularization.label_smoothing,
        class_weights=_compute_class_weights(config, labels, opened),
        monitor=config.train.monitor,
    )

    def on_message(line: str) -> None:
        log_messages(run, [line], progress)

    return Trainer(
        network,
        task,
        config=config.train,
        run=run,
        cases=len(training_cases),
        train_batches=_load_training(
            config, opened, training_cases, labels, runtime, on_message=on_message
        ),
        validation_batches=_load_validation(
            config, opened, split.select(opened.cases, "validation"), on_message=on_message
        ),
        identity={
            **config_identity(config, parts=_IDENTITY),
            "split": split.sha256[:16],
            "labels": opened.labels_sha256[:16],
            CONTENT: content.sha256[:16],
        },
        may_differ=may_differ,
        progress=progress,
        runtime=runtime,
        lr_factors=layer_factors(network, decay=config.regularization.layer_decay),
    )


def _compute_class_weights(
    config: ClassifyConfig, labels: Tensor, opened: ClassificationSet
) -> Tensor | None:
    wanted = config.regularization.class_weights
    if wanted == "none":
        return None
    if wanted == "balanced":
        return balance_classes(
            labels, num_classes=len(opened.classes), multi_label=opened.kind == "multi"
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
    *,
    on_message: Callable[[str], None],
) -> Callable[[int], Iterable[Batch]]:
    settings = config.train
    transform = TrainTransform(
        config.augment, image_size=settings.image_size, channels=opened.in_channels
    )
    images = _build_dataset(config, opened, cases, transform)
    mixing = config.mixing
    mixer = (
        BatchMixer(mixing, len(opened.classes))
        if mixing.mixup_alpha or mixing.cutmix_alpha
        else None
    )
    balanced = config.regularization.balanced_sampling
    if balanced and opened.kind == "multi":
        raise UsageError(
            "regularization.balanced_sampling needs one label per image; for several labels, use "
            "--set regularization.class_weights=balanced"
        )

    def load(start_step: int) -> Iterable[Batch]:
        sampler = build_sampler(
            settings,
            len(cases),
            runtime,
            start_step=start_step,
            labels=labels.tolist() if balanced else None,
        )
        return classification_training_batches(
            images,
            sampler=sampler,
            workers=config.data.workers,
            mixer=mixer,
            cases_per_step=settings.batch_size * runtime.world,
            on_message=on_message,
        )

    return load


def _load_validation(
    config: ClassifyConfig,
    opened: ClassificationSet,
    cases: Sequence[ClassificationCase],
    *,
    on_message: Callable[[str], None],
) -> Callable[[], Iterable[Batch]] | None:
    if not cases:
        return None
    transform = EvalTransform(config.augment, image_size=config.train.image_size)
    images = _build_dataset(config, opened, cases, transform)
    return lambda: classification_evaluation_batches(
        images, batch_size=config.predict.batch_size, workers=0, on_message=on_message
    )


def _build_dataset(
    config: ClassifyConfig,
    opened: ClassificationSet,
    cases: Sequence[ClassificationCase],
    transform: ImageTransform,
) -> ClassificationDataset:
    return ClassificationDataset(
        cases,
        classes=len(opened.classes),
        kind=opened.kind,
        channels=opened.in_channels,
        max_pixels=config.data.max_pixels,
        transform=transform,
        intensity=config.data.intensity,
        seed=config.train.seed,
    )

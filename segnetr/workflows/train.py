"""`segnetr train`: from a folder of pictures to a run with a model, scores and a report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import nn

from segnetr.config.load import config_identity, dump_config
from segnetr.config.schema import RunConfig, TrainConfig
from segnetr.data.audit import Fault, check_pairs
from segnetr.data.cache import CachedCase, CacheSettings, build_cache
from segnetr.data.case import SPLIT_NAMES, Batch, Case, DatasetSpec, Split
from segnetr.data.loaders import evaluation_loader, training_loader
from segnetr.data.sampler import ResumableSampler
from segnetr.data.splits import make_split, read_split, write_split
from segnetr.data.transforms import evaluation_transform, training_transform
from segnetr.engine.encoder_training import EncoderTraining
from segnetr.engine.manifest import write_json, write_text_atomic
from segnetr.engine.optim import count_steps
from segnetr.engine.progress import LogFile, Progress
from segnetr.engine.random_state import seed_generators
from segnetr.engine.run_dir import RunDir
from segnetr.engine.runtime import Runtime, choose_device
from segnetr.engine.tasks import SegmentationTask
from segnetr.engine.trainer import Trainer, TrainResult
from segnetr.errors import DataFaultError, UsageError
from segnetr.losses import build_loss
from segnetr.models.build import build_model, check_model
from segnetr.outputs.provenance import collect_provenance
from segnetr.workflows.dataset import OpenedDataset, open_dataset
from segnetr.workflows.encoder_weights import hand_over, require_transferable
from segnetr.workflows.evaluate import (
    EvaluateOptions,
    EvaluateOutcome,
    choose_part,
    evaluate_run,
)
from segnetr.workflows.model_folder import start_from, write_run_model
from segnetr.workflows.report import report

_NAMED_FAULTS = 5
_SIGNALS = {"interrupted", "terminated"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOutcome:
    """A finished training: where it lies and how well it does.

    Attributes:
        run: The run folder.
        result: Steps, best validation score, why it stopped.
        evaluation: Scores on the test part, on the original grid; None after an interruption.
        report: The HTML page; None after an interruption.
    """

    run: Path
    result: TrainResult
    evaluation: EvaluateOutcome | None
    report: Path | None

    @property
    def stopped(self) -> str:
        """Why the training ended."""
        return self.result.stopped

    def facts(self) -> Mapping[str, Any]:
        """Give the outcome as plain data."""
        return {
            "run": str(self.run),
            "steps": self.result.steps,
            "best_score": self.result.best_score,
            "best_step": self.result.best_step,
            "seconds": round(self.result.seconds, 1),
            "stopped": self.result.stopped,
            "evaluation": None if self.evaluation is None else self.evaluation.facts(),
            "report": None if self.report is None else str(self.report),
        }

    def text(self) -> str:
        """Give the outcome as lines for people."""
        result = self.result
        lines = [
            f"run:    {self.run}",
            f"steps:  {result.steps} in {result.seconds / 60:.1f} min ({result.stopped})",
        ]
        if result.best_score is not None:
            lines.append(f"best:   {result.best_score:.4f} in validation, step {result.best_step}")
        if self.report is None:
            return "\n".join([*lines, "to go on: the same command with --resume"])
        if self.evaluation is not None:
            lines.append(self.evaluation.text())
        return "\n".join([*lines, f"report: {self.report}"])


def train(
    config: RunConfig, *, out: Path | None = None, resume: bool = False, progress: Progress
) -> TrainOutcome:
    """Train a network on a data set, score it on the original grid, write run and report.

    Under `torchrun` every process calls this; the first one writes.

    Args:
        config: The whole configuration; it is written into the run.
        out: The run folder; None: `runs/<dataset>/<architecture>/<date-time>`.
        resume: Go on with the run in `out`.
        progress: What the user sees meanwhile.

    Raises:
        UsageError: If the data set is not there, `out` is in use, or there is nothing to resume.
        DataFaultError: If the data set has faults and `data.leave_out_faulty` is not set.
    """
    if resume and out is None:
        raise UsageError("--resume needs --out: the folder of the run to go on with")
    run = RunDir(out or _default_run(config))
    run.check(resume=resume)
    choose_device(config.train.device)  # before minutes go into the data
    check_model(config.model)
    opened = open_dataset(config.data)
    entries, faults = _prepare_data(opened, config, progress)
    with Runtime(config.train.device, amp=config.train.amp) as runtime:
        usable = [case for case in opened.cases if case.case_id in entries]
        split = _choose_split(run, usable, config, resume)
        if runtime.is_main:
            run.create(resume=resume)
            if not resume:
                _describe_run(run, config, opened, faults)
                write_split(split, run.splits)
        model = _build_network(config, opened.spec)
        if not resume:  # a resumed run has all weights in its checkpoint
            _start_network(model, run, config, runtime, progress)
        trainer = _build_trainer(
            run, config, opened.spec, entries, split, runtime, progress, model=model
        )
        result = trainer.fit(resume=resume)
        if result.stopped in _SIGNALS or not runtime.is_main:
            return TrainOutcome(run=run.path, result=result, evaluation=None, report=None)
        write_run_model(run, config, spec=opened.spec, split=split, result=result)
    return _finish(run, config, result, progress)


def _finish(
    run: RunDir, config: RunConfig, result: TrainResult, progress: Progress
) -> TrainOutcome:
    evaluation = None
    if choose_part(run) is not None:
        options = EvaluateOptions(device=config.train.device)
        evaluation = evaluate_run(run.path, options, progress=progress)
    page = report(run.path)
    return TrainOutcome(run=run.path, result=result, evaluation=evaluation, report=page)


def _default_run(config: RunConfig) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    encoder = getattr(config.model, "encoder", "segnetr")
    name: str = config.model.architecture
    if encoder != "segnetr":
        name += f"-{encoder.replace(':', '-')}"
    return Path("runs") / config.data.dataset / name / stamp


def _prepare_data(
    opened: OpenedDataset, config: RunConfig, progress: Progress
) -> tuple[dict[str, CachedCase], list[Fault]]:
    """Decode what was never decoded, and refuse a data set with faults."""
    faults = check_pairs(opened.cases)
    named = {fault.case_id for fault in faults}
    whole = [case for case in opened.cases if case.case_id not in named]
    settings = CacheSettings(
        side=_cache_side(config),
        channels=opened.spec.in_channels,
        classes=len(opened.spec.classes),
        max_pixels=config.data.max_pixels,
    )
    with progress.task("decode", len(whole)) as advance:
        cache = build_cache(
            whole,
            settings,
            folder=config.data.cache_dir,
            workers=config.data.workers,
            progress=advance,
        )
    faults += cache.faults
    if faults and not config.data.leave_out_faulty:
        raise DataFaultError(_explain_faults(faults, opened))
    if not cache.entries:
        raise DataFaultError(f"{opened.root}: no case of {opened.spec.name} is without a fault")
    return dict(cache.entries), faults


def _cache_side(config: RunConfig) -> int:
    """Keep enough pixels for the usual zoom of the augmentation, not for its rare extremes."""
    return round(max(config.train.image_size) * min(max(1.0, config.augment.scale[1]), 1.5))


def _explain_faults(faults: Sequence[Fault], opened: OpenedDataset) -> str:
    shown = "; ".join(fault.message for fault in faults[:_NAMED_FAULTS])
    more = f"; and {len(faults) - _NAMED_FAULTS} more" if len(faults) > _NAMED_FAULTS else ""
    return (
        f"{opened.root}: {len(faults)} faults: {shown}{more}. See all with `segnetr data check "
        f"--dataset {opened.spec.name}`, or train without them: --leave-out-faulty"
    )


def _choose_split(run: RunDir, cases: list[Case], config: RunConfig, resume: bool) -> Split:
    """Read the run's split when resuming, else make one."""
    if not resume:
        return make_split(
            cases,
            validation_share=config.data.validation_share,
            test_share=config.data.test_share,
            seed=config.data.split_seed,
        )
    split = read_split(run.splits)
    missing = {i for name in SPLIT_NAMES for i in split.ids(name)} - {c.case_id for c in cases}
    if missing:
        raise DataFaultError(
            f"{run.splits}: {len(missing)} cases of the split are not in the data any more, "
            f"as {min(missing)}; a resumed run needs the same data"
        )
    return split


def _describe_run(
    run: RunDir, config: RunConfig, opened: OpenedDataset, faults: Sequence[Fault]
) -> None:
    provenance = collect_provenance(device=choose_device(config.train.device))
    provenance["dataset"] = {
        "name": opened.spec.name,
        "title": opened.spec.title,
        "cases": len(opened.cases),
        "source": opened.spec.source,
        "licence": opened.spec.licence,
        "left_out": [{"case_id": f.case_id, "message": f.message} for f in faults],
    }
    write_text_atomic(run.config, dump_config(config))
    write_json(run.provenance, provenance)


def _build_network(config: RunConfig, spec: DatasetSpec) -> nn.Module:
    seed_generators(config.train.seed)
    return build_model(
        config.model,
        in_channels=spec.in_channels,
        num_classes=len(spec.classes),
        image_size=config.train.image_size,
    )


def _start_network(
    model: nn.Module, run: RunDir, config: RunConfig, runtime: Runtime, progress: Progress
) -> None:
    """Put weights of earlier trainings into the network, and say which."""
    settings = config.train
    if settings.weights is not None:
        start_from(model, settings.weights)
    if settings.encoder_weights is None:
        return
    report = hand_over(model, settings.encoder_weights, accept_partial=settings.accept_partial)
    if runtime.is_main:
        for line in report.lines():
            progress.on_message(line)
            LogFile(run.log).on_message(line)


def _encoder_training(model: nn.Module, config: TrainConfig) -> EncoderTraining | None:
    """Say how the encoder is trained, where anything about it differs from the rest."""
    factor, decay = config.encoder_lr_factor, config.encoder_layer_decay
    if factor == 1 and decay == 1 and not config.freeze_encoder_epochs:
        return None
    return EncoderTraining(
        module=require_transferable(model, "train.encoder_* and train.freeze_encoder_epochs"),
        lr_factor=factor,
        layer_decay=decay,
        frozen_epochs=config.freeze_encoder_epochs,
    )


def _build_trainer(
    run: RunDir,
    config: RunConfig,
    spec: DatasetSpec,
    entries: Mapping[str, CachedCase],
    split: Split,
    runtime: Runtime,
    progress: Progress,
    *,
    model: nn.Module,
) -> Trainer:
    classes = len(spec.classes)
    trained_on = [entries[case_id] for case_id in split.train]
    validated_on = [entries[case_id] for case_id in split.validation]
    return Trainer(
        model,
        SegmentationTask(build_loss(config.train.loss, num_classes=classes), num_classes=classes),
        config=config.train,
        run=run,
        cases=len(trained_on),
        train_batches=_load_training(config, trained_on, spec.in_channels, runtime),
        validation_batches=_load_validation(config, validated_on, spec.in_channels),
        identity={**config_identity(config), "split": split.sha256[:16]},
        progress=progress,
        runtime=runtime,
        encoder=_encoder_training(model, config.train),
    )


def _load_training(
    config: RunConfig, entries: Sequence[CachedCase], channels: int, runtime: Runtime
) -> Callable[[int], Iterable[Batch]]:
    settings = config.train
    total = count_steps(settings, cases=len(entries), world=runtime.world)
    transform = training_transform(
        config.augment,
        image_size=settings.image_size,
        intensity=config.data.intensity,
        channels=channels,
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
    config: RunConfig, entries: Sequence[CachedCase], channels: int
) -> Callable[[], Iterable[Batch]] | None:
    if not entries:
        return None
    transform = evaluation_transform(config.train.image_size, config.data.intensity, channels)
    return lambda: evaluation_loader(
        entries, transform, batch_size=config.train.batch_size, workers=0
    )

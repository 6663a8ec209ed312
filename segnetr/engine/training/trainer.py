"""The training loop."""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from segnetr.config.schema.segmentation import LoopConfig
from segnetr.data.case import Batch
from segnetr.engine.training.checkpoint import BestWeights, Checkpoint, TrainState, describe_changes
from segnetr.engine.training.finetuning import EncoderTraining
from segnetr.engine.training.learner import Learner
from segnetr.engine.training.logs import MetricLog
from segnetr.engine.training.optim import count_steps, count_steps_per_epoch
from segnetr.engine.training.random_state import capture_random, restore_random, seed_generators
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.runtime import Runtime
from segnetr.engine.training.signals import SignalHandler, StopSignal
from segnetr.engine.training.tasks import Task
from segnetr.errors import ModelFileError, SegNetrError, UsageError
from segnetr.progress import LogFile, ObserverGroup, TrainingObserver

StopReason = Literal["done", "max_minutes", "patience", "interrupted", "terminated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """How a training ended.

    Attributes:
        steps: Optimizer steps done, over all starts.
        best_score: Best validation score; None where nothing was validated yet.
        best_step: The step that gave it.
        seconds: Time spent, over all starts.
        stopped: "done", "max_minutes", "patience", or the signal: "interrupted" (SIGINT),
            "terminated" (SIGTERM).
    """

    steps: int
    best_score: float | None
    best_step: int | None
    seconds: float
    stopped: StopReason


class Trainer:
    """Trains a network for a task, and can go on where it was stopped, to the bit.

    Args:
        model: The network; it is moved to the device and trained in place.
        task: Its loss and its scores.
        config: How to train.
        run: Where to write.
        cases: Training cases, which make an epoch.
        train_batches: Gives this process's batches from a step on, `config.accumulate` of them for
            each step. What it gives must depend on the step alone.
        validation_batches: Gives all validation batches; called in the main process only. None:
            there is nothing to validate on, and no weights are the best.
        identity: What this is a training of, as hashes by name; a run is resumed with equal ones.
        progress: Who wants to know how it goes.
        runtime: Device and processes; None: made from `config` and closed at the end.
        lr_factors: What the learning rates of parameters are multiplied by, by name; see
            `segnetr.engine.training.layer_rates`. They belong to `identity`.
        encoder: How the encoder is trained, where that differs from the rest; likewise.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        *,
        config: LoopConfig,
        run: RunDir,
        cases: int,
        train_batches: Callable[[int], Iterable[Batch]],
        validation_batches: Callable[[], Iterable[Batch]] | None,
        identity: Mapping[str, str],
        progress: TrainingObserver | None = None,
        runtime: Runtime | None = None,
        lr_factors: Mapping[str, float] | None = None,
        encoder: EncoderTraining | None = None,
    ) -> None:
        if cases < 1:
            raise UsageError("no case for training; lower data.validation_share or add cases")
        self._model, self._task, self._config, self._run = model, task, config, run
        self._cases, self._identity = cases, dict(identity)
        self._train_batches, self._validation_batches = train_batches, validation_batches
        self._progress, self._runtime = progress, runtime
        self._lr_factors, self._encoder = lr_factors, encoder

    def fit(self, *, resume: bool = False) -> TrainResult:
        """Train until the steps are done, or something ends it.

        Args:
            resume: Go on from the run's last checkpoint.

        Raises:
            UsageError: If a new run finds checkpoints, a resumed one finds none, or one of another
                configuration, split or number of processes.
            ModelFileError: If no checkpoint is whole.
            WriteError: If a file cannot be written; older checkpoints are then untouched.
            SegNetrError: If loss or gradient stop being numbers.
        """
        with contextlib.ExitStack() as stack:
            runtime = self._runtime or stack.enter_context(
                Runtime(self._config.device, amp=self._config.amp)
            )
            self._run.check(resume=resume)
            runtime.wait()  # nobody writes before everybody has looked
            if runtime.is_main:
                self._run.create(resume=resume)
            runtime.wait()
            stack.enter_context(runtime.determinism(wanted=self._config.deterministic))
            interrupts = stack.enter_context(SignalHandler())
            total = count_steps(self._config, cases=self._cases, world=runtime.world)
            learner = Learner(
                self._model,
                self._task,
                config=self._config,
                runtime=runtime,
                total_steps=total,
                lr_factors=self._lr_factors,
                encoder=self._encoder,
                frozen_steps=self._frozen_steps(runtime.world),
            )
            observer = self._observe(runtime)
            checkpoint = self._load(runtime, observer) if resume else None
            start = 0 if checkpoint is None else checkpoint.state.step
            if checkpoint is not None:
                learner.restore(checkpoint)
            log = MetricLog(self._run, start_step=start) if runtime.is_main else None
            if log is not None:
                stack.enter_context(log)
            self._session = _Session(runtime, learner, interrupts, observer, log, total)
            return self._loop(checkpoint)

    def _frozen_steps(self, world: int) -> int:
        epochs = 0 if self._encoder is None else self._encoder.frozen_epochs
        return epochs * count_steps_per_epoch(self._config, cases=self._cases, world=world)

    def _loop(self, checkpoint: Checkpoint | None) -> TrainResult:
        self._begin(checkpoint)
        batches = self._open_batches(checkpoint)
        self._validate_if_due()  # a run that was interrupted before it could
        while (stopped := self._reason_to_stop()) is None:
            self._train_step(batches)
            self._validate_if_due()
            self._save_if_due()
        if not self._signal:
            self._validate()
            stopped = self._signal or stopped
        self._save()
        self._session.runtime.wait()  # the main process may still be writing
        self._session.observer.on_message(f"stopped at step {self._state.step}: {stopped}")
        return TrainResult(
            steps=self._state.step,
            best_score=self._state.best_score,
            best_step=self._state.best_step,
            seconds=self._seconds(),
            stopped=stopped,
        )

    def _begin(self, checkpoint: Checkpoint | None) -> None:
        self._state = TrainState() if checkpoint is None else checkpoint.state
        self._saved = None if checkpoint is None else checkpoint.state
        self._signal: StopSignal | None = None
        self._is_out_of_time = False
        self._batch_plan: float | None = None
        self._started = time.monotonic()

    def _open_batches(self, checkpoint: Checkpoint | None) -> Iterator[Batch]:
        """Open the batches and then set the random generators, which opening may have moved."""
        runtime, step = self._session.runtime, self._state.step
        batches = iter(self._train_batches(step) if step < self._session.total else ())
        first = list(itertools.islice(batches, 1))
        if checkpoint is None:
            seed_generators(self._config.seed + runtime.rank)
        else:
            restore_random(checkpoint.random[runtime.rank])
        opened = itertools.chain(first, batches)
        return runtime.batches(opened, channels_last=self._config.channels_last)

    def _train_step(self, batches: Iterator[Batch]) -> None:
        session, began = self._session, time.monotonic()
        caught = session.interrupts.caught
        flags = (caught == "interrupted", caught == "terminated", self._is_late())
        report = session.learner.train_step(batches, step=self._state.step, flags=flags)
        self._state = replace(self._state, step=self._state.step + 1)
        interrupted, terminated, late = (share > 0 for share in report.flags)
        if interrupted or terminated:
            self._signal = "interrupted" if interrupted else "terminated"
        self._is_out_of_time = late
        if session.log is not None:
            session.log.write(self._state.step, "train", report.values)
        passed = time.monotonic() - began
        self._batch_plan = (
            passed if self._batch_plan is None else 0.9 * self._batch_plan + 0.1 * passed
        )
        rate = 1 / self._batch_plan if self._batch_plan > 0 else None
        session.observer.on_step(self._state.step, session.total, report.values, rate)
        self._hear_signal()

    def _hear_signal(self) -> None:
        """Take a signal up at once where no other process has to agree; else with the next step."""
        if self._session.runtime.world == 1:
            self._signal = self._session.interrupts.caught
            self._is_out_of_time = self._is_late()

    def _is_late(self) -> bool:
        limit = self._config.max_minutes
        return limit is not None and self._state.step > 0 and self._seconds() >= 60 * limit

    def _seconds(self) -> float:
        return self._state.seconds + time.monotonic() - self._started

    def _reason_to_stop(self) -> StopReason | None:
        self._hear_signal()
        if self._signal:
            return self._signal
        if self._state.step >= self._session.total:
            return "done"
        if 0 < self._config.patience <= self._state.without_gain:
            return "patience"
        return "max_minutes" if self._is_out_of_time else None

    def _validate_if_due(self) -> None:
        every = self._config.validate_every or self._steps_per_epoch()
        if self._state.step % every == 0 and not self._signal:
            self._validate()

    def _validate(self) -> None:
        """Validate the judged network, once for each step, and keep it where it is the best."""
        session, state = self._session, self._state
        if state.step == state.validated_step:
            return
        if self._validation_batches is None:
            self._state = replace(state, validated_step=state.step)
            return
        scores = session.runtime.broadcast(self._score() if session.runtime.is_main else None)
        self._hear_signal()
        if not scores:
            return
        if not all(map(math.isfinite, scores.values())):
            raise SegNetrError(
                f"validation at step {state.step} gave {scores}; earlier checkpoints are kept; "
                "lower --lr or use --amp off"
            )
        score = scores[self._task.monitor]
        is_best = self._is_better(score)
        self._state = replace(
            state,
            validated_step=state.step,
            best_score=score if is_best else state.best_score,
            best_step=state.step if is_best else state.best_step,
            without_gain=0 if is_best else state.without_gain + 1,
        )
        if session.log is not None:
            session.log.write(state.step, "validation", scores)
            if is_best:
                self._save_best(score)
        session.observer.on_validation(state.step, scores, best=is_best)

    def _score(self) -> dict[str, float]:
        """Score the judged network; nothing where a signal came meanwhile."""
        session = self._session
        load = self._validation_batches
        batches = session.runtime.batches(
            load() if load else (), channels_last=self._config.channels_last
        )
        kept = capture_random()  # a validation must not move the training's random numbers
        try:
            with session.runtime.autocast():
                return self._task.validate(
                    session.learner.judged.eval(), map(self._pass_unless_stopped, batches)
                )
        except _StoppedError:
            return {}
        finally:
            restore_random(kept)

    def _pass_unless_stopped(self, batch: Batch) -> Batch:
        if self._session.interrupts.caught and self._session.runtime.world == 1:
            raise _StoppedError
        return batch

    def _is_better(self, score: float) -> bool:
        best = self._state.best_score
        if best is None:
            return True
        return score > best if self._task.higher_is_better else score < best

    def _steps_per_epoch(self) -> int:
        world = self._session.runtime.world
        return count_steps_per_epoch(self._config, cases=self._cases, world=world)

    def _save_if_due(self) -> None:
        every = self._config.save_every
        step = self._state.step
        is_due = step % every == 0 if every else step == self._state.validated_step
        if is_due and not self._signal:
            self._save()

    def _save(self) -> None:
        """Write a checkpoint, unless this very state is saved already."""
        session = self._session
        random = session.runtime.gather(capture_random())
        if self._state == self._saved:
            return
        self._saved = self._state
        if session.log is None:
            return
        session.log.sync()
        weights, average, optimizer = session.learner.tensors()
        checkpoint = Checkpoint(
            state=replace(self._state, seconds=self._seconds()),
            identity=self._identity,
            weights=weights,
            average=average,
            optimizer=optimizer,
            scaler=session.runtime.scaler.state_dict(),
            random=tuple(random),
            threads=torch.get_num_threads(),
        )
        self._run.save_checkpoint(checkpoint)

    def _save_best(self, score: float) -> None:
        weights = self._session.learner.judged.state_dict()
        step = self._state.step
        self._run.save_best(
            BestWeights(weights=weights, step=step, score=score, identity=self._identity)
        )

    def _observe(self, runtime: Runtime) -> TrainingObserver:
        if not runtime.is_main:
            return ObserverGroup()
        log_file = LogFile(self._run.log)
        return ObserverGroup(log_file, *([self._progress] if self._progress else []))

    def _load(self, runtime: Runtime, observer: TrainingObserver) -> Checkpoint:
        checkpoint, damage = self._run.load_checkpoint()
        changed = describe_changes(checkpoint.identity, self._identity)
        if len(checkpoint.random) != runtime.world:
            changed.append(f"processes were {len(checkpoint.random)}, now {runtime.world}")
        if changed:
            raise UsageError(
                f"{self._run.path}: cannot resume: {'; '.join(changed)}; use what the run was "
                "started with, or start a new one with another --out"
            )
        runtime.wait()  # all have read before anything moves
        if damage is not None:
            observer.on_message(damage)
            if runtime.is_main:
                self._run.set_aside(self._run.last)
        checkpoint = self._check_best(checkpoint, runtime, observer)
        threads = torch.get_num_threads()
        if threads != checkpoint.threads:
            observer.on_message(
                f"threads were {checkpoint.threads}, now {threads}: the run goes on, but not to "
                f"the last bit; set OMP_NUM_THREADS={checkpoint.threads} for that"
            )
        observer.on_message(f"resumed at step {checkpoint.state.step}")
        return checkpoint

    def _check_best(
        self, checkpoint: Checkpoint, runtime: Runtime, observer: TrainingObserver
    ) -> Checkpoint:
        """Forget the best score where its weights cannot be read any more."""
        if checkpoint.state.best_step is None:
            return checkpoint
        try:
            self._run.load_best()
        except ModelFileError as error:
            damage = str(error)
        else:
            return checkpoint
        runtime.wait()  # all have read before anything moves
        if runtime.is_main:
            self._run.set_aside(self._run.best)
        observer.on_message(f"{damage}; the best weights are chosen anew from here on")
        return replace(checkpoint, state=replace(checkpoint.state, best_score=None, best_step=None))


@dataclass(frozen=True, slots=True)
class _Session:
    """What one call of `fit` works with; the log is None but in the main process."""

    runtime: Runtime
    learner: Learner
    interrupts: SignalHandler
    observer: TrainingObserver
    log: MetricLog | None
    total: int


class _StoppedError(Exception):
    """A validation was given up because of a signal."""

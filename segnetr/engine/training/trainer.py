"""The training loop, with validation, checkpoints and exact resume."""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from segnetr.config.schema.segmentation import LoopConfig
from segnetr.data.case import Batch
from segnetr.engine.training.checkpoint import BestWeights, Checkpoint, TrainState, describe_changes
from segnetr.engine.training.finetuning import EncoderFinetuning
from segnetr.engine.training.learner import Learner, StopRequests
from segnetr.engine.training.logs import MetricLog
from segnetr.engine.training.optim import count_steps, count_steps_per_epoch
from segnetr.engine.training.random_state import capture_random, restore_random, seed_generators
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.runtime import Runtime
from segnetr.engine.training.signals import SignalHandler, StopSignal
from segnetr.engine.training.tasks import Task
from segnetr.errors import ModelFileError, SegNetrError, UsageError
from segnetr.progress import LogFile, ObserverGroup, TrainingObserver

StopReason = Literal["done", "max_minutes", "patience"] | StopSignal


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The result of a training.

    Attributes:
        steps: Optimizer steps done, including those before a resume.
        best_score: Best validation score; None if there was no validation yet.
        best_step: The step with the best score.
        seconds: Training time, including the time before a resume.
        stopped: "done", "max_minutes", "patience", or the signal, as in `SignalHandler.caught`.
    """

    steps: int
    best_score: float | None
    best_step: int | None
    seconds: float
    stopped: StopReason


class Trainer:
    """Trains a network for a task, with exact resume.

    Args:
        model: The network; it is moved to the device and trained in place.
        task: Its loss and its validation scores.
        config: How to train.
        run: Where to write.
        cases: Number of training cases in an epoch.
        train_batches: Returns the batches of this process from a step on, `config.accumulate` for
            each step. They must depend on the step only.
        validation_batches: Returns all validation batches; called in the main process only. None:
            there is no validation, and no best weights are saved.
        identity: Hashes that identify the training, by name; a run is resumed only with equal ones.
        may_differ: Names of entries of `identity` that may differ in the run to resume. Entries
            that a checkpoint of an earlier version lacks are named here as well.
        progress: Receives steps, validations and messages.
        runtime: Device and processes; None: made from `config`, and closed at the end of `fit`.
        lr_factors: Learning-rate factors by parameter name, see
            `segnetr.engine.training.optim.layer_factors`. Include them in `identity`.
        encoder: How the encoder is trained, if that differs from the rest. Include it in
            `identity`.
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
        may_differ: Collection[str] = (),
        progress: TrainingObserver | None = None,
        runtime: Runtime | None = None,
        lr_factors: Mapping[str, float] | None = None,
        encoder: EncoderFinetuning | None = None,
    ) -> None:
        if cases < 1:
            raise UsageError("no case for training; lower data.validation_share or add cases")
        self._task, self._config, self._run, self._identity = task, config, run, dict(identity)
        self._may_differ = frozenset(may_differ)
        self._train_batches, self._validation_batches = train_batches, validation_batches
        self._owns_runtime = runtime is None
        self._runtime = runtime or Runtime(config.device, amp=config.amp)
        self._observer = self._build_observer(progress)
        self._signals = SignalHandler()
        self._log: MetricLog | None = None  # opened by `fit`, in the main process

        world = self._runtime.world
        self._steps_per_epoch = count_steps_per_epoch(config, cases=cases, world=world)
        self._total_steps = count_steps(config, cases=cases, world=world)
        frozen_epochs = 0 if encoder is None else encoder.frozen_epochs
        self.learner = Learner(
            model,
            task,
            config=config,
            runtime=self._runtime,
            total_steps=self._total_steps,
            lr_factors=lr_factors,
            encoder=encoder,
            frozen_steps=frozen_epochs * self._steps_per_epoch,
        )
        self._state = TrainState()
        self._saved_state: TrainState | None = None
        self._signal: StopSignal | None = None
        self._is_out_of_time = False
        self._started = time.monotonic()
        self._seconds_per_step: float | None = None  # smoothed

    def fit(self, *, resume: bool = False) -> TrainResult:
        """Train until all steps are done, or until something stops the training.

        Args:
            resume: Continue from the last checkpoint of the run.

        Raises:
            UsageError: If a new run finds checkpoints, or a resumed run finds none, or one with
                another configuration, split or number of processes.
            ModelFileError: If no checkpoint is complete.
            WriteError: If a file cannot be written; older checkpoints are not changed.
            SegNetrError: If the loss or the gradient is not finite.
        """
        runtime = self._runtime
        with contextlib.ExitStack() as stack:
            if self._owns_runtime:
                stack.enter_context(runtime)
            self._run.check(resume=resume)
            runtime.wait()  # no process writes before all have checked
            if runtime.is_main:
                self._run.create(resume=resume)
            runtime.wait()
            stack.enter_context(runtime.determinism(wanted=self._config.deterministic))
            stack.enter_context(self._signals)
            checkpoint = self._load_checkpoint() if resume else None
            if checkpoint is not None:
                self.learner.restore(checkpoint)
                self._state = self._saved_state = checkpoint.state
            if runtime.is_main:
                self._log = stack.enter_context(MetricLog(self._run, start_step=self._state.step))
            self._started = time.monotonic()
            return self._train(self._open_batches(checkpoint))

    def _train(self, batches: Iterator[Batch]) -> TrainResult:
        self._validate_if_due()  # a validation that was interrupted in the run to resume
        while (stopped := self._find_stop_reason()) is None:
            self._train_step(batches)
            self._validate_if_due()
            self._save_if_due()
        if not self._signal:
            self._validate()
            stopped = self._signal or stopped
        self._save()
        self._runtime.wait()  # the main process may still be writing
        self._observer.on_message(f"stopped at step {self._state.step}: {stopped}")
        return TrainResult(
            steps=self._state.step,
            best_score=self._state.best_score,
            best_step=self._state.best_step,
            seconds=self._seconds(),
            stopped=stopped,
        )

    def _open_batches(self, checkpoint: Checkpoint | None) -> Iterator[Batch]:
        """Open the batches, then set the random generators, which opening may have advanced."""
        step = self._state.step
        batches = iter(self._train_batches(step) if step < self._total_steps else ())
        first = list(itertools.islice(batches, 1))
        if checkpoint is None:
            seed_generators(self._config.seed + self._runtime.rank)
        else:
            restore_random(checkpoint.random[self._runtime.rank])
        opened = itertools.chain(first, batches)
        return self._runtime.batches(opened, channels_last=self._config.channels_last)

    def _train_step(self, batches: Iterator[Batch]) -> None:
        began, caught = time.monotonic(), self._signals.caught
        requests = StopRequests(
            **({caught: True} if caught else {}),
            out_of_time=self._is_late(),
        )
        report = self.learner.train_step(
            batches,
            step=self._state.step,
            stop_requests=requests,
        )
        self._state = replace(self._state, step=self._state.step + 1)
        requests = report.stop_requests
        self._signal = requests.signal
        self._is_out_of_time = requests.out_of_time
        if self._log is not None:
            self._log.write(self._state.step, "train", report.values)
        rate = self._measure_rate(time.monotonic() - began)
        self._observer.on_step(self._state.step, self._total_steps, report.values, rate)
        self._check_signal()

    def _measure_rate(self, seconds: float) -> float | None:
        """Return the smoothed steps per second, given the duration of the last step."""
        if self._seconds_per_step is None:
            self._seconds_per_step = seconds
        else:
            self._seconds_per_step = 0.9 * self._seconds_per_step + 0.1 * seconds
        return 1 / self._seconds_per_step if self._seconds_per_step > 0 else None

    def _check_signal(self) -> None:
        """React to a signal at once in a single process; several agree in the next step."""
        if self._runtime.world == 1:
            self._signal = self._signals.caught
            self._is_out_of_time = self._is_late()

    def _is_late(self) -> bool:
        limit = self._config.max_minutes
        return limit is not None and self._state.step > 0 and self._seconds() >= 60 * limit

    def _seconds(self) -> float:
        return self._state.seconds + time.monotonic() - self._started

    def _find_stop_reason(self) -> StopReason | None:
        self._check_signal()
        if self._signal:
            return self._signal
        if self._state.step >= self._total_steps:
            return "done"
        if 0 < self._config.patience <= self._state.without_gain:
            return "patience"
        return "max_minutes" if self._is_out_of_time else None

    def _validate_if_due(self) -> None:
        every = self._config.validate_every or self._steps_per_epoch
        if self._state.step % every == 0 and not self._signal:
            self._validate()

    def _validate(self) -> None:
        """Validate once per step, and save the weights if they are the best so far."""
        state = self._state
        if state.step == state.validated_step:
            return
        if self._validation_batches is None:
            self._state = replace(state, validated_step=state.step)
            return
        scores = self._runtime.broadcast(self._score() if self._runtime.is_main else None)
        self._check_signal()
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
        if self._log is not None:
            self._log.write(state.step, "validation", scores)
            if is_best:
                self._save_best(score)
        self._observer.on_validation(state.step, scores, best=is_best)

    def _score(self) -> dict[str, float]:
        """Return the validation scores, or nothing if a signal interrupted the validation."""
        load = self._validation_batches
        batches = self._runtime.batches(
            load() if load else (), channels_last=self._config.channels_last
        )
        random_state = capture_random()  # validation must not advance the random generators
        try:
            with self._runtime.autocast():
                model = self.learner.eval_model.eval()
                return self._task.validate(model, map(self._raise_if_stopped, batches))
        except _StoppedError:
            return {}
        finally:
            restore_random(random_state)

    def _raise_if_stopped(self, batch: Batch) -> Batch:
        if self._signals.caught and self._runtime.world == 1:
            raise _StoppedError
        return batch

    def _is_better(self, score: float) -> bool:
        best = self._state.best_score
        if best is None:
            return True
        return score > best if self._task.higher_is_better else score < best

    def _save_if_due(self) -> None:
        every = self._config.save_every
        step = self._state.step
        is_due = step % every == 0 if every else step == self._state.validated_step
        if is_due and not self._signal:
            self._save()

    def _save(self) -> None:
        """Write a checkpoint, unless this state is saved already."""
        random_states = self._runtime.gather(capture_random())
        if self._state == self._saved_state:
            return
        self._saved_state = self._state
        if self._log is None:
            return
        self._log.sync()
        weights, average, optimizer = self.learner.tensors()
        checkpoint = Checkpoint(
            state=replace(self._state, seconds=self._seconds()),
            identity=self._identity,
            weights=weights,
            average=average,
            optimizer=optimizer,
            scaler=self._runtime.scaler.state_dict(),
            random=tuple(random_states),
            threads=torch.get_num_threads(),
        )
        self._run.save_checkpoint(checkpoint)

    def _save_best(self, score: float) -> None:
        weights = self.learner.eval_model.state_dict()
        step = self._state.step
        self._run.save_best(
            BestWeights(weights=weights, step=step, score=score, identity=self._identity)
        )

    def _build_observer(self, progress: TrainingObserver | None) -> TrainingObserver:
        if not self._runtime.is_main:
            return ObserverGroup()
        log_file = LogFile(self._run.log)
        return ObserverGroup(log_file, *([progress] if progress else []))

    def _load_checkpoint(self) -> Checkpoint:
        runtime = self._runtime
        checkpoint, damage = self._run.load_checkpoint()
        changed = describe_changes(checkpoint.identity, self._identity, ignore=self._may_differ)
        if len(checkpoint.random) != runtime.world:
            changed.append(f"processes were {len(checkpoint.random)}, now {runtime.world}")
        if changed:
            raise UsageError(
                f"{self._run.path}: cannot resume: {'; '.join(changed)}; use the settings of the "
                "run, or start a new run with another --out"
            )
        runtime.wait()  # all processes have read before any file moves
        if damage is not None:
            self._observer.on_message(damage)
            if runtime.is_main:
                self._run.set_aside(self._run.last)
        checkpoint = self._check_best(checkpoint)
        threads = torch.get_num_threads()
        if threads != checkpoint.threads:
            self._observer.on_message(
                f"threads were {checkpoint.threads}, now {threads}: the run continues, but not to "
                f"the last bit; set OMP_NUM_THREADS={checkpoint.threads} for exact resume"
            )
        self._observer.on_message(f"resumed at step {checkpoint.state.step}")
        return checkpoint

    def _check_best(self, checkpoint: Checkpoint) -> Checkpoint:
        """Reset the best score if the best weights cannot be read any more."""
        if checkpoint.state.best_step is None:
            return checkpoint
        try:
            self._run.load_best()
        except ModelFileError as error:
            damage = str(error)
        else:
            return checkpoint
        self._runtime.wait()  # all processes have read before any file moves
        if self._runtime.is_main:
            self._run.set_aside(self._run.best)
        self._observer.on_message(f"{damage}; the best weights are selected again from here")
        return replace(checkpoint, state=replace(checkpoint.state, best_score=None, best_step=None))


class _StoppedError(Exception):
    """A signal interrupted a validation."""

"""One optimizer step: network, optimizer, weight average (EMA) and encoder freezing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

import torch
from torch import Tensor, nn

from segnetr.config.schema.segmentation import LoopConfig
from segnetr.data.case import Batch
from segnetr.engine.training.checkpoint import Checkpoint
from segnetr.engine.training.ema import ModelEMA
from segnetr.engine.training.finetuning import EncoderFinetuning, EncoderFreeze
from segnetr.engine.training.optim import (
    build_optimizer,
    build_schedule,
    load_optimizer_state,
    name_optimizer_state,
    set_learning_rate,
)
from segnetr.engine.training.runtime import Runtime
from segnetr.engine.training.signals import STOP_SIGNALS, StopSignal
from segnetr.engine.training.tasks import Task
from segnetr.errors import ModelFileError, SegNetrError

_ADVICE = (
    "earlier checkpoints are kept; lower --lr, use --amp off, or check these cases "
    "(segnetr data check)"
)


@dataclass(frozen=True, slots=True)
class StopRequests:
    """Reasons to end the training after a step: of one process, or of any process.

    Attributes:
        interrupted: SIGINT was received.
        terminated: SIGTERM was received.
        hangup: SIGHUP was received.
        usr1: SIGUSR1 was received.
        usr2: SIGUSR2 was received.
        out_of_time: The time limit has passed.
    """

    interrupted: bool = False
    terminated: bool = False
    hangup: bool = False
    usr1: bool = False
    usr2: bool = False
    out_of_time: bool = False

    @property
    def signal(self) -> StopSignal | None:
        """The signal that was received; the first of several."""
        return next((name for name in STOP_SIGNALS if getattr(self, name)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """The result of one optimizer step.

    Attributes:
        values: Loss terms averaged over passes and processes, "lr" and "grad_norm".
        stop_requests: The requests of all processes.
    """

    values: Mapping[str, float]
    stop_requests: StopRequests


class Learner:
    """A network and everything that changes while it is trained.

    Attributes:
        model: The network, on its device.
        ema: The moving average of its weights, or None.
        optimizer: Its optimizer.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        *,
        config: LoopConfig,
        runtime: Runtime,
        total_steps: int,
        lr_factors: Mapping[str, float] | None = None,
        encoder: EncoderFinetuning | None = None,
        frozen_steps: int = 0,
    ) -> None:
        self._task, self._config, self._runtime = task, config, runtime
        self.model = runtime.place(model, channels_last=config.channels_last)
        factors = dict(lr_factors or {})
        self._freeze: EncoderFreeze | None = None
        if encoder is not None:
            factors.update(encoder.factors(self.model))
            self._freeze = EncoderFreeze(
                encoder.module, steps=frozen_steps, without_gradient=runtime.world == 1
            )
        self.optimizer = build_optimizer(self.model, config, factors=factors)
        self._schedule = build_schedule(config, total_steps)
        self._wrapped = runtime.prepare(self.model, compiled=config.compile)
        # After `prepare`, which copies the weights of the first process to all others.
        self.ema = ModelEMA(self.model, decay=config.ema_decay) if config.ema_decay > 0 else None
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]

    @property
    def eval_model(self) -> nn.Module:
        """The network to validate and save as best: the averaged one if there is an average."""
        return self.model if self.ema is None else self.ema.model

    def train_step(
        self, batches: Iterator[Batch], *, step: int, stop_requests: StopRequests
    ) -> StepReport:
        """Run one optimizer step.

        Args:
            batches: Training batches; one is taken for each accumulated pass.
            step: Number of steps done before, from 0.
            stop_requests: Requests of this process, shared with all processes.

        Raises:
            SegNetrError: If the loss or the gradient is not finite (before any weight changes), or
                if there are no more batches.
        """
        runtime, config = self._runtime, self._config
        self._wrapped.train()
        if self._freeze is not None:
            self._freeze.before_passes(step)
        lr = self._schedule(step)
        set_learning_rate(self.optimizer, lr)

        losses = _LossSums(config.accumulate)
        for index in range(config.accumulate):
            batch = _next_batch(batches, step)
            with runtime.accumulate(self._wrapped, last=index == config.accumulate - 1):
                with runtime.autocast():
                    loss = self._task.loss(self._wrapped, batch)
                runtime.backward(loss["total"] / config.accumulate)
            losses.add(loss, batch["case_id"])
        if self._freeze is not None:
            self._freeze.after_passes(step)

        means, is_finite, stop_requests = _average_over_processes(losses, stop_requests, runtime)
        if not is_finite:
            self._reject("loss", step, losses.list_bad_cases())
        grad_norm = runtime.clip(self._parameters, self.optimizer, norm=config.clip_norm).item()
        is_finite = grad_norm == grad_norm and grad_norm != float("inf")
        # The float16 scaler skips a step whose gradient overflows.
        if not is_finite and not runtime.scaler.is_enabled():
            self._reject("gradient", step, losses.case_ids)

        runtime.step(self.optimizer)
        if self.ema is not None:
            self.ema.update(self.model, updates=step)
        values = {**means, "lr": lr, **({"grad_norm": grad_norm} if is_finite else {})}
        return StepReport(values=values, stop_requests=stop_requests)

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, dict[str, Tensor]]:
        """Return the weights, the averaged weights and the optimizer state by name."""
        average = None if self.ema is None else self.ema.model.state_dict()
        return (
            self.model.state_dict(),
            average,
            name_optimizer_state(self.optimizer, self.model),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Load weights, average, optimizer and scaler from a checkpoint.

        Raises:
            ModelFileError: If the checkpoint belongs to another network or optimizer.
        """
        try:
            self.model.load_state_dict(dict(checkpoint.weights))
            if self.ema is not None:
                self.ema.model.load_state_dict(dict(checkpoint.average or {}))
            load_optimizer_state(self.optimizer, self.model, checkpoint.optimizer)
            if self._runtime.scaler.is_enabled():
                self._runtime.scaler.load_state_dict(dict(checkpoint.scaler))
        except (KeyError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise ModelFileError(
                f"the checkpoint at step {checkpoint.state.step} is of another network ({first})"
            ) from error

    def _reject(self, name: str, step: int, case_ids: Sequence[str]) -> None:
        gathered = self._runtime.gather(list(case_ids))
        all_ids = ", ".join(case_id for ids in gathered for case_id in ids)
        raise SegNetrError(
            f"the {name} is not a finite number at step {step + 1} (cases {all_ids}); {_ADVICE}"
        )


class _LossSums:
    """The loss terms of the accumulated passes of one step.

    Attributes:
        means: Each term averaged over the passes, on the device.
        case_ids: The cases of all passes.
    """

    def __init__(self, passes: int) -> None:
        self._passes = passes
        self.means: dict[str, Tensor] = {}
        self._totals: list[Tensor] = []
        self._batches: list[list[str]] = []

    def add(self, loss: Mapping[str, Tensor], case_ids: list[str]) -> None:
        for name, term in loss.items():
            share = term.detach().float() / self._passes
            self.means[name] = self.means[name] + share if name in self.means else share
        self._totals.append(loss["total"].detach())
        self._batches.append(case_ids)

    @property
    def case_ids(self) -> list[str]:
        return [case_id for ids in self._batches for case_id in ids]

    def is_bad(self) -> Tensor:
        """Return whether the loss of each pass is NaN or infinite, (passes,) on the device."""
        return ~torch.stack(self._totals).isfinite()

    def list_bad_cases(self) -> list[str]:
        flags = self.is_bad().tolist()
        bad = [ids for ids, flag in zip(self._batches, flags, strict=True) if flag]
        return [case_id for ids in bad for case_id in ids]


def _average_over_processes(
    losses: _LossSums, stop_requests: StopRequests, runtime: Runtime
) -> tuple[dict[str, float], bool, StopRequests]:
    """All-reduce the loss terms, whether they are finite, and the stop requests, as one vector.

    Besides the gradient norm, this is the only time in a step that the CPU waits for the device.
    """
    terms = torch.stack([*losses.means.values(), losses.is_bad().any().float()])
    own_requests = torch.tensor([float(flag) for flag in astuple(stop_requests)])
    vector = torch.cat([terms, own_requests.to(terms.device)])
    means: list[float] = runtime.mean(vector).tolist()
    count = len(losses.means)
    requests = StopRequests(*(share > 0 for share in means[count + 1 :]))
    return dict(zip(losses.means, means, strict=False)), means[count] == 0, requests


def _next_batch(batches: Iterator[Batch], step: int) -> Batch:
    batch = next(batches, None)
    if batch is None:
        raise SegNetrError(f"the training batches ended before step {step + 1} was done")
    return batch

"""What learns: network, optimizer, moving average; one optimizer step of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segnetr.config.schema.segmentation import LoopConfig
from segnetr.data.case import Batch
from segnetr.engine.training.checkpoint import Checkpoint
from segnetr.engine.training.ema import ModelEMA
from segnetr.engine.training.finetuning import EncoderFreeze, EncoderTraining
from segnetr.engine.training.optim import build_optimizer, build_schedule, set_learning_rate
from segnetr.engine.training.optimizer_state import load_optimizer_state, name_optimizer_state
from segnetr.engine.training.runtime import Runtime
from segnetr.engine.training.tasks import Task
from segnetr.errors import ModelFileError, SegNetrError

_WAY_OUT = (
    "earlier checkpoints are kept; lower --lr, use --amp off, or look at these cases "
    "(segnetr data check)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What a step gave.

    Attributes:
        values: Loss terms averaged over passes and processes, "lr" and "grad_norm".
        flags: Share of the processes that raised each flag.
    """

    values: Mapping[str, float]
    flags: tuple[float, ...]


class Learner:
    """A network with all that changes while it is trained.

    Attributes:
        model: The network itself, on the device.
        average: Its moving average, or None.
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
        encoder: EncoderTraining | None = None,
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
        # After `prepare`, which gives every process the weights of the first.
        self.average = (
            ModelEMA(self.model, decay=config.ema_decay) if config.ema_decay > 0 else None
        )
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and saved as best: the average where there is one."""
        return self.model if self.average is None else self.average.model

    def train_step(
        self, batches: Iterator[Batch], *, step: int, flags: tuple[bool, ...]
    ) -> StepReport:
        """Take one optimizer step.

        Args:
            batches: As many batches are taken from it as passes are accumulated.
            step: Steps done before, from 0.
            flags: Wishes of this process that all processes are to hear of.

        Raises:
            SegNetrError: If the loss or the gradient is no number, before any weight changes, or
                if there are no more batches.
        """
        self._wrapped.train()
        if self._freeze is not None:
            self._freeze.before_passes(step)
        rate = self._schedule(step)
        set_learning_rate(self.optimizer, rate)
        sums, totals, case_ids = self._run_passes(batches, step)
        if self._freeze is not None:
            self._freeze.after_passes(step)
        is_bad = ~torch.stack(totals).isfinite()
        raised = torch.tensor([float(flag) for flag in flags], device=is_bad.device)
        vector = torch.cat([torch.stack([*sums.values(), is_bad.any().float()]), raised])
        # The only wait for the device in a step, besides the gradient's norm.
        means: list[float] = self._runtime.mean(vector).tolist()
        terms = dict(zip(sums, means, strict=False))
        if means[len(sums)] > 0:
            bad = [ids for ids, flag in zip(case_ids, is_bad.tolist(), strict=True) if flag]
            self._refuse("loss", step, [case_id for ids in bad for case_id in ids])
        norm = self._runtime.clip(
            self._parameters, self.optimizer, norm=self._config.clip_norm
        ).item()
        values = {**terms, "lr": rate}
        if norm == norm and norm != float("inf"):
            values["grad_norm"] = norm
        elif not self._runtime.scaler.is_enabled():
            self._refuse("gradient", step, [case_id for ids in case_ids for case_id in ids])
        self._runtime.step(self.optimizer)
        if self.average is not None:
            self.average.update(self.model, updates=step)
        return StepReport(values=values, flags=tuple(means[len(sums) + 1 :]))

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, dict[str, Tensor]]:
        """Give weights, average and optimizer state by name."""
        average = None if self.average is None else self.average.model.state_dict()
        return (
            self.model.state_dict(),
            average,
            name_optimizer_state(self.optimizer, self.model),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put everything back as a checkpoint has it.

        Raises:
            ModelFileError: If the checkpoint is of another network or optimizer.
        """
        try:
            self.model.load_state_dict(dict(checkpoint.weights))
            if self.average is not None:
                self.average.model.load_state_dict(dict(checkpoint.average or {}))
            load_optimizer_state(self.optimizer, self.model, checkpoint.optimizer)
            if self._runtime.scaler.is_enabled():
                self._runtime.scaler.load_state_dict(dict(checkpoint.scaler))
        except (KeyError, RuntimeError) as error:
            first = str(error).splitlines()[0]
            raise ModelFileError(
                f"the checkpoint at step {checkpoint.state.step} is of another network ({first})"
            ) from error

    def _run_passes(
        self, batches: Iterator[Batch], step: int
    ) -> tuple[dict[str, Tensor], list[Tensor], list[list[str]]]:
        count = self._config.accumulate
        sums: dict[str, Tensor] = {}
        totals: list[Tensor] = []
        case_ids: list[list[str]] = []
        for index in range(count):
            batch = next(batches, None)
            if batch is None:
                raise SegNetrError(f"the training batches ended before step {step + 1} was done")
            with self._runtime.accumulate(self._wrapped, last=index == count - 1):
                with self._runtime.autocast():
                    terms = self._task.loss(self._wrapped, batch)
                self._runtime.backward(terms["total"] / count)
            for name, term in terms.items():
                share = term.detach().float() / count
                sums[name] = sums[name] + share if name in sums else share
            totals.append(terms["total"].detach())
            case_ids.append(batch["case_id"])
        return sums, totals, case_ids

    def _refuse(self, what: str, step: int, case_ids: list[str]) -> None:
        every = [case_id for found in self._runtime.gather(case_ids) for case_id in found]
        raise SegNetrError(
            f"the {what} is not a finite number at step {step + 1} "
            f"(cases {', '.join(every)}); {_WAY_OUT}"
        )

"""Devices, processes and mixed precision; the only module that uses Hugging Face accelerate.

accelerate starts the process group and wraps the network. Mixed precision uses torch's autocast and
scaler, because accelerate would patch the `forward` of the network. Checkpoints are written by
`segnetr.engine.training.checkpoint`.
"""

import contextlib
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from segnetr.data.case import Batch
from segnetr.errors import SegNetrError, UsageError

Amp = Literal["auto", "bf16", "fp16", "off"]

# The other processes wait in a collective call while the main process validates alone.
_TIMEOUT = timedelta(hours=6)
_CLOSE_SECONDS = 0.5


def choose_device(name: str) -> torch.device:
    """Return the device of a setting.

    Args:
        name: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:INDEX".

    Raises:
        UsageError: If this machine has no such device.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name in ("auto", "cuda"):
        index = os.environ.get("LOCAL_RANK", "0")
    else:
        kind, _, index = name.partition(":")
        if kind != "cuda" or not index.isdecimal():
            raise UsageError(f"unknown device {name!r}; choose auto, cpu, cuda or cuda:INDEX")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(index) >= count:
        raise UsageError(
            f"device {name!r}: this machine has {count} CUDA devices; use --device cpu"
        )
    return torch.device("cuda", int(index))


class Runtime:
    """One process of a training: its device, rank and precision.

    Under `torchrun`, every process creates one; otherwise there is a single process. Use it as a
    context manager, or call `close`.

    Attributes:
        device: Device of the network and of batches.
        rank: Number of this process, 0 to `world` - 1.
        world: Number of processes.
        amp_dtype: Type of matrix products under autocast, or None without mixed precision.
        scaler: Scales float16 gradients; does nothing for other types.

    Raises:
        UsageError: If the device or the precision is not available.
        SegNetrError: If `torchrun` started several processes that cannot connect.
    """

    def __init__(self, device: str = "auto", *, amp: Amp = "off") -> None:
        # `segnetr predict` uses `choose_device` only and must not wait for this import.
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import InitProcessGroupKwargs

        self.device = choose_device(device)
        self.amp_dtype = _choose_amp(amp, self.device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        # accelerate keeps one state per process and refuses a second with another device.
        AcceleratorState._reset_state(reset_partial_state=True)
        # Without `cpu=True` on a machine without a GPU, accelerate silently starts independent
        # processes under torchrun, all with rank 0; the check below would detect it.
        self._accelerator = Accelerator(
            cpu=self.device.type == "cpu",
            mixed_precision="no",
            device_placement=False,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_TIMEOUT)],
        )
        self.rank = int(self._accelerator.process_index)
        self.world = int(self._accelerator.num_processes)
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started != self.world:
            raise SegNetrError(
                f"torchrun started {started} processes, but this one sees {self.world}; "
                "check WORLD_SIZE and RANK in the environment"
            )
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.amp_dtype is torch.float16
        )

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the process group."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # A thread of gloo releases the tensors of the last collective call once it gets the
            # GIL. If the process ends before that, the exit waits for this thread forever.
            time.sleep(_CLOSE_SECONDS)
            torch.distributed.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows messages."""
        return self.rank == 0

    def place(self, model: nn.Module, *, channels_last: bool) -> nn.Module:
        """Move a network to the device and to a memory layout, in place."""
        model.to(self.device)
        if channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def prepare(self, model: nn.Module, *, compiled: bool) -> nn.Module:
        """Wrap a placed network so that its gradients are averaged over the processes.

        A single process without compilation gets the network itself. The wrapper shares the
        parameters of the network and does not change it.
        """
        if compiled:
            with warnings.catch_warnings():
                # torch.compile imports a torch module that uses the deprecated TorchScript.
                warnings.filterwarnings("ignore", r"`torch\.jit\.", DeprecationWarning)
                model = cast(nn.Module, torch.compile(model, dynamic=False))
        return cast(nn.Module, self._accelerator.prepare_model(model, device_placement=False))

    def move(self, batch: Batch, *, channels_last: bool) -> Batch:
        """Move a batch to the device."""
        image = batch["image"].to(self.device, non_blocking=True)
        moved: Batch = {**batch, "image": image}
        if channels_last:
            moved["image"] = image.contiguous(memory_format=torch.channels_last)
        if "mask" in batch:
            moved["mask"] = batch["mask"].to(self.device, non_blocking=True)
        if "label" in batch:
            moved["label"] = batch["label"].to(self.device, non_blocking=True)
        return moved

    def autocast(self) -> torch.autocast:
        """Return the autocast context for running a network."""
        return torch.autocast(
            self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None
        )

    @contextlib.contextmanager
    def accumulate(self, model: nn.Module, *, last: bool) -> Iterator[None]:
        """Return the context of an accumulated pass; only the last one averages gradients."""
        with contextlib.nullcontext() if last else self._accelerator.no_sync(model):
            yield

    def backward(self, loss: Tensor) -> None:
        """Backpropagate a loss, scaled for float16."""
        self.scaler.scale(loss).backward()

    def clip(
        self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, *, norm: float
    ) -> Tensor:
        """Clip the gradient to a maximum norm (0: no limit), and return its norm before."""
        self.scaler.unscale_(optimizer)
        return nn.utils.clip_grad_norm_(parameters, norm if norm > 0 else float("inf"))

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the parameters, unless float16 gradients overflowed, and clear the gradients."""
        self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad(set_to_none=True)

    def mean(self, values: Tensor) -> Tensor:
        """Average a vector over the processes; a collective call."""
        if self.world == 1:
            return values
        return cast(Tensor, self._accelerator.reduce(values, reduction="mean"))

    def gather(self, value: Any) -> list[Any]:
        """Collect a plain value of every process, in the order of ranks."""
        if self.world == 1:
            return [value]
        from accelerate.utils import gather_object

        return list(gather_object([value]))

    def wait(self) -> None:
        """Wait until every process makes this call."""
        self.gather(None)

    def broadcast(self, values: Mapping[str, float] | None) -> dict[str, float]:
        """Return the values of the main process in every process; the others pass None."""
        return dict(next(found for found in self.gather(values) if found is not None))

    @contextlib.contextmanager
    def determinism(self, *, wanted: bool) -> Iterator[None]:
        """Use deterministic algorithms, and restore the settings of torch afterwards."""
        before = torch.are_deterministic_algorithms_enabled()
        benchmark = torch.backends.cudnn.benchmark
        if wanted:
            # cuBLAS reads this at its start; without it torch rejects matrix products.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(mode=True)
        # The benchmark mode selects kernels by measured speed, so that equal runs differ.
        torch.backends.cudnn.benchmark = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(mode=before)
            torch.backends.cudnn.benchmark = benchmark

    def batches(self, batches: Iterable[Batch], *, channels_last: bool) -> Iterator[Batch]:
        """Move batches to the device, one by one."""
        for batch in batches:
            yield self.move(batch, channels_last=channels_last)


def _choose_amp(amp: Amp, device: torch.device) -> torch.dtype | None:
    on_gpu = device.type == "cuda"
    if amp == "off" or (amp == "auto" and not on_gpu):
        return None
    has_bf16 = not on_gpu or torch.cuda.is_bf16_supported(including_emulation=False)
    if amp == "auto":
        return torch.bfloat16 if has_bf16 else torch.float16
    if amp == "fp16" and not on_gpu:
        raise UsageError("amp 'fp16' needs a GPU; use --amp bf16 or --amp off")
    if amp == "bf16" and not has_bf16:
        raise UsageError(f"amp 'bf16': {device} does not support it; use --amp fp16 or --amp off")
    return torch.bfloat16 if amp == "bf16" else torch.float16

# ruff: noqa: ARG002, T201 - a script that talks to the test through its output
"""Run a small training for the tests of the engine, imported or as a script.

Usage: engine_run.py OUT STEPS [options], see `parse`.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from segnetr.config.schema.segmentation import TrainConfig
from segnetr.data.case import Batch
from segnetr.engine.training import checkpoint as checkpoint_module
from segnetr.engine.training.finetuning import EncoderFinetuning
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.runtime import Runtime
from segnetr.engine.training.tasks import SegmentationTask, Task
from segnetr.engine.training.trainer import Trainer
from segnetr.errors import SegNetrError
from segnetr.losses import build_loss
from segnetr.storage import manifest

SIDE, CASES = 16, 12


def draw_case(number: int) -> tuple[Tensor, Tensor]:
    """Return a disc on noise, determined by the number."""
    generator = torch.Generator().manual_seed(number)
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    center = torch.randint(4, SIDE - 4, (2,), generator=generator)
    disc = ((y - center[0]) ** 2 + (x - center[1]) ** 2) < 16
    image = torch.randn(3, SIDE, SIDE, generator=generator) * 0.3 + disc
    return image, disc.long()[None]


def collate(numbers: list[int]) -> Batch:
    images, masks = zip(*map(draw_case, numbers), strict=True)
    ids = [f"case_{number}" for number in numbers]
    return {"image": torch.stack(images), "mask": torch.stack(masks), "case_id": ids}


class SyntheticBatches(Dataset[Batch]):
    """Return batch i of a training run."""

    def __init__(self, start: int, count: int, size: int, *, rank: int = 0, world: int = 1) -> None:
        self._start, self._count, self._size = start, count, size
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Batch:
        if index >= self._count:
            raise IndexError(index)
        first = ((self._start + index) * self._world + self._rank) * self._size
        return collate([(first + offset) % 1000 for offset in range(self._size)])


def make_network(*, plain: bool = False) -> nn.Module:
    """Return a small network; `plain` has no batch norm and no dropout."""
    torch.manual_seed(5)
    middle: list[nn.Module] = [] if plain else [nn.BatchNorm2d(8), nn.Dropout2d(0.3)]
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), *middle, nn.GELU(), nn.Conv2d(8, 2, 3, padding=1)
    )


def make_task() -> SegmentationTask:
    """Build the task of two classes with the cross entropy as its loss."""
    return SegmentationTask(build_loss("ce", num_classes=2), num_classes=2)


def make_trainer(
    out: Path,
    config: TrainConfig,
    *,
    workers: int = 0,
    plain: bool = False,
    runtime: Runtime | None = None,
    frozen_epochs: int = 0,
    network: nn.Module | None = None,
    task: Task | None = None,
    **options: object,
) -> Trainer:
    """Build a trainer of a small network on synthetic images; `options` override its arguments."""
    rank, world = (0, 1) if runtime is None else (runtime.rank, runtime.world)

    def train_batches(step: int) -> Iterable[Batch]:
        count = ((config.steps or 0) - step) * config.accumulate
        data = SyntheticBatches(
            step * config.accumulate, count, config.batch_size, rank=rank, world=world
        )
        return iter(DataLoader(data, batch_size=None, num_workers=workers))

    def validation_batches() -> Iterator[Batch]:
        return iter([collate(list(range(2000, 2004))), collate([2004, 2005])])

    settings: dict[str, object] = {
        "config": config,
        "run": RunDir(out),
        "cases": CASES,
        "train_batches": train_batches,
        "validation_batches": validation_batches,
        "identity": {"config": "c" * 8, "split": "5" * 8},
        "runtime": runtime,
    }
    task = task or make_task()
    network = network or make_network(plain=plain)
    if frozen_epochs:
        settings["encoder"] = EncoderFinetuning(module=network[:-1], frozen_epochs=frozen_epochs)  # type: ignore[index]
    return Trainer(network, task, **{**settings, **options})  # type: ignore[arg-type]


class Reporter:
    """Prints messages, and kills this process at the end of a given step."""

    def __init__(self, *, kill_at_step: int = 0, slow: float = 0.0) -> None:
        self._kill_at_step, self._slow = kill_at_step, slow

    def on_step(self, step: int, total: int, terms: object, rate: float | None) -> None:
        print(f"step {step}", flush=True)
        time.sleep(self._slow)
        if step == self._kill_at_step:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_validation(self, step: int, scores: object, *, best: bool) -> None:
        print(f"validation {step}", flush=True)

    def on_message(self, text: str) -> None:
        print(f"message {text}", flush=True)


def kill_in_write(number: int) -> None:
    """Kill this process in the middle of the n-th file of its checkpoints."""
    written = 0

    def write_half(path: Path, data: bytes) -> None:
        nonlocal written
        written += 1
        if written == number:
            with path.open("wb") as file:
                file.write(data[: len(data) // 2])
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        manifest_write(path, data)

    manifest_write = manifest.write_bytes
    manifest.write_bytes = write_half
    checkpoint_module.write_bytes = write_half


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--dump", action="store_true", help="write each process's weights")
    for name in ("workers", "kill-at-step", "kill-at-write", "limit-file-size"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--freeze", type=int, default=0, help="epochs of all but the last layer")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=2)
    parser.add_argument("--slow", type=float, default=0.0)
    return parser.parse_args()


def main() -> int:
    given = parse()
    config = TrainConfig(
        steps=given.steps,
        batch_size=given.batch_size,
        accumulate=given.accumulate,
        warmup_steps=2,
        validate_every=3,
        save_every=given.save_every,
        device="cpu",
    )
    if given.kill_at_write:
        kill_in_write(given.kill_at_write)
    if given.limit_file_size:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (given.limit_file_size,) * 2)
    reporter = Reporter(kill_at_step=given.kill_at_step, slow=given.slow)
    try:
        with Runtime("cpu") as runtime:
            trainer = make_trainer(
                given.out,
                config,
                workers=given.workers,
                plain=given.plain,
                runtime=runtime,
                frozen_epochs=given.freeze,
                progress=reporter,
            )
            result = trainer.fit(resume=given.resume)
            if given.dump:
                weights, average, _ = trainer.learner.tensors()
                both = {**weights, **{f"average.{k}": v for k, v in (average or {}).items()}}
                path = given.out.with_name(f"rank{runtime.rank}.safetensors")
                save_file({k: v.contiguous() for k, v in both.items()}, path)
    except SegNetrError as error:
        print(f"error {error}", flush=True)
        return error.exit_code
    print(f"stopped {result.stopped}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One network of a benchmark: what it costs, how fast it is, how well it does; kept when done."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segnetr.config.load import config_identity, load_config, plain
from segnetr.config.schema.segmentation import ModelConfig, RunConfig
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.runtime import choose_device
from segnetr.errors import SegNetrError, UsageError
from segnetr.metrics import MEAN, select_summary
from segnetr.models.build import build_model
from segnetr.models.cost import count_macs, count_parameters
from segnetr.progress import Progress
from segnetr.storage.manifest import write_json
from segnetr.workflows.datasets.loading import open_dataset
from segnetr.workflows.evaluation.evaluate import EvaluateOutcome
from segnetr.workflows.training.train import train

REFERENCE = "model/segnetr"
"""The network that speed is a ratio to."""

_WARM_UPS, _REPEATS = 1, 5
_TIMED_IMAGES = 2


class InterruptedBenchmarkError(SegNetrError):
    """A benchmark that was stopped by a signal; finished rows are kept."""

    def __init__(self, name: str, stopped: str) -> None:
        super().__init__(f"{name}: {stopped}; the same command goes on where it was")
        self.exit_code = 143 if stopped == "terminated" else 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One network, measured.

    Attributes:
        name: Of the network.
        parameters: Trainable numbers.
        gmac: Multiply-adds of one image of the training size, in 1e9.
        milliseconds: Median time of one image in prediction.
        speed: Throughput over that of `segnetr`, both measured in turns.
        dice: Mean Dice on the scored part.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end.
        train_minutes: Time of the training.
        per_case: Dice by case.
        identity: Hashes of the settings it was made with.
    """

    name: str
    parameters: int
    gmac: float
    milliseconds: float
    speed: float
    dice: float
    low: float | None
    high: float | None
    train_minutes: float
    per_case: dict[str, float]
    identity: dict[str, str]

    def shown(self) -> dict[str, Any]:
        """Give the figures of a table."""
        return {
            "network": self.name,
            "parameters": self.parameters,
            "gmac": round(self.gmac, 3),
            "ms_per_image": round(self.milliseconds, 2),
            "speed": round(self.speed, 2),
            "dice": round(self.dice, 4),
            "low": None if self.low is None else round(self.low, 4),
            "high": None if self.high is None else round(self.high, 4),
            "train_minutes": round(self.train_minutes, 1),
        }


def measure_row(name: str, config: RunConfig, *, out: Path, progress: Progress) -> Row:
    """Measure one network, or read what an earlier call measured.

    A training that was interrupted goes on where it was.

    Args:
        name: Of the network, and of its file and folder.
        config: Everything about its training.
        out: Folder of the benchmark: `rows/NAME.json`, `runs/NAME/`.
        progress: What the user sees meanwhile.

    Raises:
        UsageError: If a row of other settings stands there, or nothing can be scored.
        InterruptedBenchmarkError: If a signal came.
    """
    stem = name.replace(":", "-").replace("/", "-")
    file, run = out / "rows" / f"{stem}.json", RunDir(out / "runs" / stem)
    identity = config_identity(config)
    if file.is_file():
        return _read_row(file, identity)
    progress.on_message(f"benchmark: {name}")
    outcome = train(config, out=run.path, resume=run.has_checkpoint(), progress=progress)
    if outcome.stopped in ("interrupted", "terminated"):
        raise InterruptedBenchmarkError(name, outcome.stopped)
    if not isinstance(outcome.evaluation, EvaluateOutcome):
        raise UsageError(f"{config.data.dataset}: no test and no validation part to score")
    row = Row(
        name=name,
        **_measure_cost(config),
        **_measure_dice(outcome.evaluation),
        train_minutes=outcome.result.seconds / 60,
        identity=identity,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, plain(row))
    return row


def _read_row(file: Path, identity: dict[str, str]) -> Row:
    try:
        row = Row(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{file}: no row of a benchmark ({error}); remove it") from error
    if row.identity != identity:
        changed = [key for key in identity if row.identity.get(key) != identity[key]]
        raise UsageError(
            f"{file}: a row of other settings ({', '.join(changed)}); give another --out"
        )
    return row


def _measure_cost(config: RunConfig) -> dict[str, Any]:
    channels, classes = _count_channels(config)
    size = config.train.image_size
    device = choose_device(config.train.device)

    def build(model: ModelConfig) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            network = build_model(model, in_channels=channels, num_classes=classes, image_size=size)
        return network.eval()

    network = build(config.model)
    costs = {
        "parameters": count_parameters(network),
        "gmac": count_macs(network, (1, channels, *size)) / 1e9,
    }
    image = torch.zeros(_TIMED_IMAGES, channels, *size, device=device)
    reference = build(load_config([REFERENCE]).model).to(device)
    theirs, ours = time_in_turns([reference, network.to(device)], image)
    return {**costs, "milliseconds": 1000 * ours / _TIMED_IMAGES, "speed": theirs / ours}


def time_in_turns(networks: list[nn.Module], image: torch.Tensor) -> list[float]:
    """Give the median seconds of a prediction of each network, measured in turns.

    In turns, because what else runs on a machine comes and goes, and then touches all alike.
    """
    seconds: list[list[float]] = [[] for _ in networks]
    finish: Callable[[], None] = torch.cuda.synchronize if image.is_cuda else lambda: None
    with torch.inference_mode():
        for turn in range(_WARM_UPS + _REPEATS):
            for index, network in enumerate(networks):
                finish()
                start = time.perf_counter()
                network(image)
                finish()
                if turn >= _WARM_UPS:
                    seconds[index].append(time.perf_counter() - start)
    return [statistics.median(values) for values in seconds]


def _count_channels(config: RunConfig) -> tuple[int, int]:
    spec = open_dataset(config.data).spec
    return spec.in_channels, len(spec.classes)


def _measure_dice(outcome: EvaluateOutcome) -> dict[str, Any]:
    evaluation = outcome.evaluation
    try:
        summary = select_summary(evaluation.summaries, "dice")
    except KeyError:
        raise UsageError(f"{outcome.title}: no case could be scored") from None
    values: dict[str, list[float]] = {}
    for score in evaluation.scores:
        if score.metric == "dice" and score.class_name != MEAN and score.value is not None:
            values.setdefault(score.case_id, []).append(score.value)
    assert summary.mean is not None
    return {
        "dice": summary.mean,
        "low": summary.low,
        "high": summary.high,
        "per_case": {case: sum(part) / len(part) for case, part in values.items()},
    }

"""A row of a benchmark: cost, speed and Dice of a network, saved when it is finished."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segnetr.config.load import config_identity, load_config, to_plain
from segnetr.config.schema.segmentation import ModelConfig, RunConfig
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.runtime import choose_device
from segnetr.errors import STOP_CODES, SegNetrError, UsageError
from segnetr.metrics import MEAN, select_summary
from segnetr.models.build import build_model
from segnetr.models.cost import count_macs, count_parameters
from segnetr.progress import Progress
from segnetr.storage.manifest import write_json
from segnetr.workflows.datasets.loading import open_dataset
from segnetr.workflows.evaluation.evaluate import EvaluateOutcome
from segnetr.workflows.training.train import train

REFERENCE = "model/segnetr"
"""The reference network for relative speed."""

_WARM_UPS, _REPEATS = 1, 5
_TIMED_IMAGES = 2


class InterruptedBenchmarkError(SegNetrError):
    """A signal stopped the benchmark; finished rows are saved."""

    def __init__(self, name: str, stopped: str) -> None:
        super().__init__(f"{name}: {stopped}; run the same command to continue")
        self.exit_code = STOP_CODES[stopped]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRow:
    """Measurements of a network.

    Attributes:
        name: Name of the network.
        parameters: Number of trainable parameters.
        gmac: Multiply-adds for an image of the training size, in 1e9.
        milliseconds: Median prediction time of an image.
        speed: Throughput divided by that of `segnetr`, in interleaved measurements.
        dice: Mean Dice on the scored split.
        low: Lower end of its 95 % bootstrap interval.
        high: Upper end of this interval.
        train_minutes: Training time.
        per_case: Dice by case.
        identity: Hashes of the settings.
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

    def to_table_row(self) -> dict[str, Any]:
        """Return the values of the table, rounded."""
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


def measure_row(name: str, config: RunConfig, *, out: Path, progress: Progress) -> BenchmarkRow:
    """Train and measure a network, or read the row of an earlier call.

    An interrupted training is resumed.

    Args:
        name: Name of the network, and of its file and folder.
        config: The whole configuration.
        out: Folder of the benchmark, with `rows/NAME.json` and `runs/NAME/`.
        progress: Shows the progress.

    Raises:
        UsageError: If there is a row of other settings, or nothing can be scored.
        InterruptedBenchmarkError: If a signal stopped the training.
    """
    stem = name.replace(":", "-").replace("/", "-")
    file, run = out / "rows" / f"{stem}.json", RunDir(out / "runs" / stem)
    identity = config_identity(config)
    if file.is_file():
        return _read_row(file, identity)
    progress.on_message(f"benchmark: {name}")
    outcome = train(config, out=run.path, resume=run.has_checkpoint(), progress=progress)
    if outcome.stopped in STOP_CODES:
        raise InterruptedBenchmarkError(name, outcome.stopped)
    if not isinstance(outcome.evaluation, EvaluateOutcome):
        raise UsageError(f"{config.data.dataset}: no test and no validation case to score")
    row = BenchmarkRow(
        name=name,
        **_measure_cost(config),
        **_measure_dice(outcome.evaluation),
        train_minutes=outcome.result.seconds / 60,
        identity=identity,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, to_plain(row))
    return row


def _read_row(file: Path, identity: dict[str, str]) -> BenchmarkRow:
    try:
        row = BenchmarkRow(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{file}: not a row of a benchmark ({error}); remove the file") from error
    if row.identity != identity:
        changed = [key for key in identity if row.identity.get(key) != identity[key]]
        raise UsageError(
            f"{file}: a row of other settings ({', '.join(changed)}); choose another --out"
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
    reference_seconds, seconds = time_interleaved([reference, network.to(device)], image)
    return {
        **costs,
        "milliseconds": 1000 * seconds / _TIMED_IMAGES,
        "speed": reference_seconds / seconds,
    }


def time_interleaved(networks: list[nn.Module], image: torch.Tensor) -> list[float]:
    """Return the median prediction time of each network in seconds, in interleaved measurements.

    Interleaving makes other load on the machine affect all networks equally.
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

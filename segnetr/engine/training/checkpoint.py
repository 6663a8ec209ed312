"""Checkpoints: the complete state of a training for exact resume, without pickle.

Tensors are stored as safetensors and all other values as JSON. `MANIFEST.sha256` covers both.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as format_tensors
from torch import Tensor

from segnetr.config.renames import rename_sections
from segnetr.engine.training.random_state import RandomState
from segnetr.errors import ModelFileError
from segnetr.storage.manifest import verify_manifest, write_bytes, write_json

CHECKPOINT_VERSION = 1
Content = TypeVar("Content")
_WEIGHTS, _AVERAGE, _OPTIMIZER = "model.safetensors", "average.safetensors", "optimizer.safetensors"
_STATE, _RANDOM = "state.json", "random.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """Progress of a training.

    Attributes:
        step: Optimizer steps done.
        validated_step: Step of the last validation; 0: none yet.
        best_score: Best validation score so far.
        best_step: Step of the best score.
        without_gain: Number of validations since the best score.
        seconds: Training time, including the time before a resume.
    """

    step: int = 0
    validated_step: int = 0
    best_score: float | None = None
    best_step: int | None = None
    without_gain: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The state of a training after a step.

    Attributes:
        state: Its progress.
        identity: Hashes of configuration and split by name.
        weights: Parameters and buffers of the network by name.
        average: Parameters and buffers of the moving average; None without an average.
        optimizer: State of the optimizer, `KEY.PARAMETER` -> tensor.
        scaler: State of the float16 scaler; empty without a scaler.
        random: State of the random generators of each process.
        threads: Number of CPU threads; another number changes the last bits of results.
    """

    state: TrainState
    identity: Mapping[str, str]
    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor] | None
    optimizer: Mapping[str, Tensor]
    scaler: Mapping[str, Any]
    random: tuple[RandomState, ...]
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BestWeights:
    """The weights with the best validation score, averaged if the training averages weights.

    Attributes:
        weights: Parameters and buffers by name.
        step: Optimizer steps done before.
        score: Their validation score.
        identity: As in `Checkpoint`.
    """

    weights: Mapping[str, Tensor]
    step: int
    score: float
    identity: Mapping[str, str]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into an empty folder; the caller adds the manifest."""
    write_tensors(folder / _WEIGHTS, checkpoint.weights)
    if checkpoint.average is not None:
        write_tensors(folder / _AVERAGE, checkpoint.average)
    write_tensors(folder / _OPTIMIZER, checkpoint.optimizer)
    write_json(folder / _RANDOM, [state.to_plain() for state in checkpoint.random])
    plain = {
        "format": CHECKPOINT_VERSION,
        "state": asdict(checkpoint.state),
        "identity": dict(checkpoint.identity),
        "scaler": dict(checkpoint.scaler),
        "has_average": checkpoint.average is not None,
        "threads": checkpoint.threads,
        "torch": torch.__version__,
    }
    write_json(folder / _STATE, plain)


def read_run_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint and verify its hashes.

    Raises:
        ModelFileError: If it is missing, truncated, modified or of another format.
    """
    verify_manifest(folder, required=(_WEIGHTS, _OPTIMIZER, _RANDOM, _STATE))
    plain = _read_state(folder)

    def build() -> Checkpoint:
        return Checkpoint(
            state=TrainState(**plain["state"]),
            identity=rename_sections(plain["identity"]),
            weights=read_tensors(folder / _WEIGHTS),
            average=read_tensors(folder / _AVERAGE) if plain["has_average"] else None,
            optimizer=read_tensors(folder / _OPTIMIZER),
            scaler=plain["scaler"],
            random=tuple(map(RandomState.from_plain, _read_json(folder / _RANDOM))),
            threads=plain["threads"],
        )

    return _build_checked(folder, build)


def write_best(folder: Path, best: BestWeights) -> None:
    """Write the best weights into an empty folder; the caller adds the manifest."""
    write_tensors(folder / _WEIGHTS, best.weights)
    plain = {"step": best.step, "score": best.score, "identity": dict(best.identity)}
    write_json(folder / _STATE, {"format": CHECKPOINT_VERSION, **plain})


def read_best(folder: Path) -> BestWeights:
    """Read the best weights and verify their hashes.

    Raises:
        ModelFileError: If they are missing, truncated, modified or of another format.
    """
    verify_manifest(folder, required=(_WEIGHTS, _STATE))
    plain = _read_state(folder)

    def build() -> BestWeights:
        weights = read_tensors(folder / _WEIGHTS)
        return BestWeights(
            weights=weights,
            step=plain["step"],
            score=plain["score"],
            identity=rename_sections(plain["identity"]),
        )

    return _build_checked(folder, build)


def describe_changes(
    before: Mapping[str, str], now: Mapping[str, str], *, ignore: Collection[str] = ()
) -> list[str]:
    """Return a line with both values for each entry that differs between two identities.

    Args:
        before: An identity.
        now: Another one.
        ignore: Names of entries that may differ.
    """
    names = sorted({*before, *now}.difference(ignore))
    return [
        f"{name} was {before.get(name, 'not given')}, now {now.get(name, 'not given')}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name as safetensors; `OSError` is not converted.

    Tensors are copied first only if safetensors cannot write them directly: tensors on another
    device, not contiguous, or sharing memory with a previous tensor.
    """
    plain: dict[str, Tensor] = {}
    written: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach()
        storage = value.untyped_storage().data_ptr()
        if value.device.type != "cpu" or not value.is_contiguous() or storage in written:
            value = value.cpu().clone(memory_format=torch.contiguous_format)
        written.add(storage)
        plain[name] = value
    write_bytes(path, format_tensors(plain))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors by name.

    Raises:
        ModelFileError: If the file cannot be read as safetensors.
    """
    try:
        return parse_tensors(path.read_bytes())
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error
    except SafetensorError as error:
        raise ModelFileError(f"{path}: not a safetensors file ({error})") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: cannot be read ({error})") from error


def _read_state(folder: Path) -> dict[str, Any]:
    plain = _read_json(folder / _STATE)
    found = plain.get("format") if isinstance(plain, dict) else None
    if found != CHECKPOINT_VERSION:
        raise ModelFileError(
            f"{folder}: checkpoint format {found!r}, this version reads {CHECKPOINT_VERSION}; "
            "use the version of segnetr that wrote it"
        )
    return dict(plain)


def _build_checked(folder: Path, build: Callable[[], Content]) -> Content:
    try:
        return build()
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{folder}: not a checkpoint of segnetr ({error!r})") from error

"""Everything a training needs to go on to the bit, in one sealed folder without pickle.

Tensors are safetensors, the rest is JSON, and `MANIFEST.sha256` covers both.
"""

import json
from collections.abc import Callable, Mapping
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

FORMAT_VERSION = 1
Content = TypeVar("Content")
_WEIGHTS, _AVERAGE, _OPTIMIZER = "model.safetensors", "average.safetensors", "optimizer.safetensors"
_STATE, _RANDOM = "state.json", "random.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """Where a training stands.

    Attributes:
        step: Optimizer steps done.
        validated_step: The step of the last validation; 0: none yet.
        best_score: Best validation score so far.
        best_step: The step that gave it.
        without_gain: Validations since then.
        seconds: Time spent in this training, over all its starts.
    """

    step: int = 0
    validated_step: int = 0
    best_score: float | None = None
    best_step: int | None = None
    without_gain: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A training at the end of one step.

    Attributes:
        state: Where it stands.
        identity: What it is a training of, as hashes of configuration and split by name.
        weights: The network's parameters and buffers by name.
        average: Those of the moving average; None without one.
        optimizer: The optimizer's state, `KEY.PARAMETER` -> tensor.
        scaler: State of the float16 scaler; empty without one.
        random: The random generators, one entry for each process.
        threads: Threads of a CPU kernel; another number changes the last bits.
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
    """The weights with the best validation score; the moving average where there is one.

    Attributes:
        weights: Parameters and buffers by name.
        step: Optimizer steps they had.
        score: Their validation score.
        identity: As in `Checkpoint`.
    """

    weights: Mapping[str, Tensor]
    step: int
    score: float
    identity: Mapping[str, str]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into an empty folder; the caller seals it."""
    write_tensors(folder / _WEIGHTS, checkpoint.weights)
    if checkpoint.average is not None:
        write_tensors(folder / _AVERAGE, checkpoint.average)
    write_tensors(folder / _OPTIMIZER, checkpoint.optimizer)
    write_json(folder / _RANDOM, [state.to_plain() for state in checkpoint.random])
    plain = {
        "format": FORMAT_VERSION,
        "state": asdict(checkpoint.state),
        "identity": dict(checkpoint.identity),
        "scaler": dict(checkpoint.scaler),
        "has_average": checkpoint.average is not None,
        "threads": checkpoint.threads,
        "torch": torch.__version__,
    }
    write_json(folder / _STATE, plain)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, every byte of it checked.

    Raises:
        ModelFileError: If it is missing, torn, changed or of another format.
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

    return _build_or_refuse(folder, build)


def write_best(folder: Path, best: BestWeights) -> None:
    """Write the best weights into an empty folder; the caller seals it."""
    write_tensors(folder / _WEIGHTS, best.weights)
    plain = {"step": best.step, "score": best.score, "identity": dict(best.identity)}
    write_json(folder / _STATE, {"format": FORMAT_VERSION, **plain})


def read_best(folder: Path) -> BestWeights:
    """Read the best weights, every byte of them checked.

    Raises:
        ModelFileError: If they are missing, torn, changed or of another format.
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

    return _build_or_refuse(folder, build)


def describe_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Name every entry that differs between two identities, with both values."""
    names = sorted({*before, *now})
    return [
        f"{name} was {before.get(name, 'not given')}, now {now.get(name, 'not given')}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name as safetensors; `OSError` passes through.

    Copied beforehand are only tensors that safetensors refuses as they are: those on another
    device, in another layout, or in memory that one before them has as well.
    """
    plain: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach()
        storage = value.untyped_storage().data_ptr()
        if value.device.type != "cpu" or not value.is_contiguous() or storage in taken:
            value = value.cpu().clone(memory_format=torch.contiguous_format)
        taken.add(storage)
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
        raise ModelFileError(f"{path}: is no safetensors file ({error})") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: cannot be read ({error})") from error


def _read_state(folder: Path) -> dict[str, Any]:
    plain = _read_json(folder / _STATE)
    found = plain.get("format") if isinstance(plain, dict) else None
    if found != FORMAT_VERSION:
        raise ModelFileError(
            f"{folder}: checkpoint format {found!r}, this version reads {FORMAT_VERSION}; "
            "use the version of segnetr that wrote it"
        )
    return dict(plain)


def _build_or_refuse(folder: Path, build: Callable[[], Content]) -> Content:
    try:
        return build()
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{folder}: not a checkpoint of ours ({error!r})") from error

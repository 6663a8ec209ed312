"""Read checkpoints without running code, and load published ones into our networks."""

import io
import itertools
import logging
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_backbones.backbone import Backbone
from hybrid_backbones.checkpoint_guess import recognize_checkpoint

# In this order, because the validation of the official code uses the moving average.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIX = "module."
_LOG = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that is damaged, unsafe, or of another network."""


# Types that torch.load raises for damaged archives.
_DAMAGED = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    struct.error,
)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The changes that made a checkpoint fit, one line each."""

    notes: tuple[str, ...]


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors`, `.pth`, `.pt` or `.bin` file without running its code.

    An unpacked file, which is a folder, is accepted too: the downloads of Mobile-Former are
    (AAboys/MobileFormer, issue 19).

    Raises:
        CheckpointError: If the file is missing, damaged, or contains objects other than tensors,
            plain containers and numbers.
    """
    file = Path(path)
    if not file.is_file() and not (file / "data.pkl").is_file():
        raise CheckpointError(f"{file}: no such checkpoint file")
    try:
        content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{file}: holds Python objects, not only tensors, and is not opened; on a machine "
            "where you trust it: torch.save(torch.load(FILE, weights_only=False)['model'], NEW)"
        ) from None
    except _DAMAGED as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file}: damaged or not a checkpoint ({reason})") from None
    return unwrap_state_dict(content, source=str(file))


def unwrap_state_dict(content: Any, *, source: str = "checkpoint") -> dict[str, Tensor]:
    """Find the tensors inside the usual wrappers and strip the `module.` of data parallelism.

    Raises:
        CheckpointError: If there is no mapping of names to tensors.
    """
    for wrapper in _WRAPPERS:
        inner = content.get(wrapper) if isinstance(content, Mapping) else None
        if isinstance(inner, Mapping) and inner:
            return unwrap_state_dict(inner, source=source)
    tensors = content if isinstance(content, Mapping) else {}
    if not tensors or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise CheckpointError(f"{source}: holds no state dict (names with tensors)")
    return {str(key).removeprefix(_PREFIX): value for key, value in tensors.items()}


def load_published(model: Backbone, state_dict: Mapping[str, Tensor]) -> LoadReport:
    """Load a checkpoint in its published key layout, strictly.

    A classifier with another class count keeps its initialization, and a first convolution with
    another channel count is adapted. The report and the log contain one line for each.

    A network built under `torch.device("meta")` uses the tensors of the checkpoint themselves, in
    their own type, so that a large network is in memory only once.

    Raises:
        CheckpointError: If an entry is missing, unknown, or of another shape. The message names the
            network that the checkpoint probably belongs to.
    """
    if model.is_fused:
        raise CheckpointError(
            f"this {type(model).__name__} is fused; load the checkpoint into the network it was "
            "made of, then fuse that"
        )
    published = unwrap_state_dict(state_dict)
    converted = model.convert_published(published)
    own = model.state_dict()
    # Counters of batch norms have no effect, and some published files do not contain them.
    counters = {
        key: torch.zeros_like(own[key], device="cpu") if own[key].is_meta else own[key]
        for key in own
        if key.endswith("num_batches_tracked")
    }
    converted = {**counters, **converted}
    missing = sorted(set(own) - set(converted))
    unknown = sorted(set(converted) - set(own))
    if missing or unknown:
        raise CheckpointError(
            f"checkpoint does not fit {type(model).__name__}: {_count('missing', missing)}, "
            f"{_count('unknown', unknown)}{_likeness(published)}"
        )
    notes: list[str] = []
    for key in sorted(own):
        fitted = _adapt(key, converted[key], own[key], model)
        if fitted is None:
            raise CheckpointError(
                f"checkpoint does not fit this {type(model).__name__}: {key} has shape "
                f"{tuple(converted[key].shape)} in the file, {tuple(own[key].shape)} in the "
                f"network{_likeness(published)}"
            )
        converted[key], note = fitted
        notes += [note] if note else []
    is_empty = any(value.is_meta for value in own.values())
    model.load_state_dict(converted, strict=True, assign=is_empty)
    _require_values(model)
    for note in notes:
        _LOG.warning("%s", note)
    return LoadReport(tuple(notes))


def adapt_first_convolution(weight: Tensor, in_channels: int) -> Tensor:
    """Adapt a convolution (D, C, k, k) to another number of input channels.

    The response to a gray image is unchanged: the kernels are summed over their channels, repeated,
    and divided by the new number of channels.
    """
    mean = weight.sum(dim=1, keepdim=True) / in_channels
    return mean.repeat(1, in_channels, *[1] * (weight.ndim - 2))


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def _read_torch(file: Path) -> Any:
    import argparse

    # timm's checkpoints contain their command line as a Namespace, which is plain data.
    with torch.serialization.safe_globals([argparse.Namespace]):
        source = _pack(file) if file.is_dir() else file
        return torch.load(source, map_location="cpu", weights_only=True)


def _pack(folder: Path) -> io.BytesIO:
    """Pack the folder of an unpacked archive so that torch can read it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for part in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(part, f"archive/{part.relative_to(folder).as_posix()}")
    packed.seek(0)
    return packed


def _adapt(key: str, value: Tensor, own: Tensor, model: nn.Module) -> tuple[Tensor, str] | None:
    """Return the adapted value of an entry and a note on the change, or None if it cannot fit."""
    if value.shape == own.shape:
        return value, ""
    head = getattr(model, "head_keys", ())
    if key in head:
        note = f"{key}: {len(value)} classes in the file, {len(own)} here; classifier not loaded"
        return own, note if key.endswith("weight") else ""
    first = getattr(model, "first_convolution", ())
    if key in ((first,) if isinstance(first, str) else first) and value.ndim == own.ndim:
        note = f"{key}: {value.shape[1]} channels in the file adapted to {own.shape[1]}"
        return adapt_first_convolution(value, own.shape[1]), note
    return None


def _require_values(model: nn.Module) -> None:
    for name, value in itertools.chain(model.named_parameters(), model.named_buffers()):
        if value.is_meta:
            raise CheckpointError(
                f"{name} of this {type(model).__name__} has no value in the checkpoint; make the "
                "network on the CPU, not under torch.device('meta')"
            )


def _likeness(published: Mapping[str, Tensor]) -> str:
    return f"; its keys are {recognize_checkpoint(published) or 'of no network known here'}"


def _count(word: str, keys: list[str]) -> str:
    return f"{len(keys)} {word}" + (f" (as {keys[0]})" if keys else "")

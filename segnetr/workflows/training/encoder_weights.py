"""Load encoder weights from a classification run, a segmentation run, or a checkpoint file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hybrid_backbones.backbone import Backbone
from hybrid_backbones.weights import CheckpointError, adapt_first_convolution, read_checkpoint
from segnetr.errors import ModelFileError, UsageError
from segnetr.models.segnetr.backbone_encoder import BackboneEncoder
from segnetr.models.segnetr.encoder import SegNetrEncoder
from segnetr.outputs.models.model_file import CARD_NAME, WEIGHTS_NAME, find_model_folder
from segnetr.storage.manifest import MANIFEST_NAME, verify_manifest

MIN_SHARE = 0.9
"""Share of the encoder's tensors that must match, unless `accept_partial` is set."""

# Name prefixes of the encoder in a plain checkpoint, a segmentation network, or a wrapper.
_PREFIXES = (
    *("", "network.encoder.pyramid.backbone.backbone.", "network.encoder.pyramid.backbone."),
    *("network.encoder.", "backbone.", "encoder."),
)
_MAX_NAMES = 5
# Errors of converting a checkpoint of another architecture.
_CONVERSION_ERRORS = (CheckpointError, KeyError, ValueError, IndexError, RuntimeError, TypeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferReport:
    """The tensors that were transferred to an encoder.

    Attributes:
        source: The file that was read.
        matched: Tensors of the encoder that were loaded from the file.
        missing: Tensors of the encoder that keep their random initialization.
        unused: Tensors of the file that the encoder does not have, as a classification head.
        notes: Adapted and skipped tensors, one line each.
    """

    source: Path
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def share(self) -> float:
        """Share of the encoder's tensors that matched, 0 to 1."""
        return len(self.matched) / max(1, len(self.matched) + len(self.missing))

    def lines(self) -> list[str]:
        """Return messages with the number of matched, missing and unused tensors."""
        total = len(self.matched) + len(self.missing)
        lines = [
            f"encoder weights: {len(self.matched)} of {total} tensors matched "
            f"({self.share:.0%}) from {self.source}"
        ]
        for word, keys in (("missing", self.missing), ("unused", self.unused)):
            lines.append(f"encoder weights: {len(keys)} {word}{_list_names(keys)}")
        return [*lines, *(f"encoder weights: {note}" for note in self.notes)]


def find_transferable(model: nn.Module) -> nn.Module | None:
    """Return the encoder of a network that can load encoder weights, or None."""
    encoder = getattr(getattr(model, "network", None), "encoder", None)
    return encoder.transferable if isinstance(encoder, SegNetrEncoder | BackboneEncoder) else None


def require_transferable(model: nn.Module, setting: str) -> nn.Module:
    """Return the encoder of a network, for a setting that requires one.

    Raises:
        UsageError: If the network has no such encoder; names the setting.
    """
    encoder = find_transferable(model)
    if encoder is None:
        raise UsageError(f"{setting}: this network has no separate encoder; use --model segnetr")
    return encoder


def load_encoder_weights(
    model: nn.Module, source: Path, *, accept_partial: bool = False
) -> TransferReport:
    """Load weights of another training into the encoder of a network.

    Args:
        model: A network of `build_model`.
        source: A run, its model folder, or a checkpoint file of a classifier or a segmentation
            network, or an official checkpoint of the backbone. It is never unpickled.
        accept_partial: Also accept a source with less than nine tenths of the encoder's tensors.

    Raises:
        UsageError: If the network has no encoder, or too few tensors match.
        ModelFileError: If the source is missing, truncated, modified or unsafe.
    """
    encoder = require_transferable(model, "--encoder-weights")
    file = _find_file(source)
    try:
        state = read_checkpoint(file)
    except CheckpointError as error:
        raise ModelFileError(str(error)) from error
    report, values = max(
        (_match(encoder, candidate, file) for candidate in _read_layouts(encoder, state)),
        key=lambda found: found[0].share,
    )
    if not report.matched or (report.share < MIN_SHARE and not accept_partial):
        raise UsageError(
            f"--encoder-weights {source}: {'; '.join(report.lines())}; fewer than "
            f"{MIN_SHARE:.0%} match: use weights of the same --encoder, or add --accept-partial"
        )
    with torch.no_grad():
        own = encoder.state_dict()
        for key, value in values.items():
            own[key].copy_(value)
    return report


def _find_file(source: Path) -> Path:
    is_ours = source.name in (CARD_NAME, WEIGHTS_NAME)
    if source.is_file() and not (is_ours and (source.parent / MANIFEST_NAME).is_file()):
        return source
    folder = find_model_folder(source)
    verify_manifest(folder, required=(WEIGHTS_NAME,))
    return folder / WEIGHTS_NAME


def _read_layouts(encoder: nn.Module, state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Return the tensors under each naming scheme that the encoder may use."""
    for prefix in _PREFIXES:
        yield {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
    if isinstance(encoder, Backbone):
        try:
            yield encoder.convert_published(state)
        except _CONVERSION_ERRORS:
            return


def _match(
    encoder: nn.Module, candidate: Mapping[str, Tensor], file: Path
) -> tuple[TransferReport, dict[str, Tensor]]:
    # Batch counters of batch norms have no effect, and some published files lack them.
    own = {k: v for k, v in encoder.state_dict().items() if not k.endswith("num_batches_tracked")}
    first = getattr(encoder, "first_convolution", ())
    firsts = (first,) if isinstance(first, str) else tuple(first)
    values: dict[str, Tensor] = {}
    notes = []
    for key, tensor in own.items():
        found = candidate.get(key)
        if found is None:
            continue
        if found.shape == tensor.shape:
            values[key] = found
        elif key in firsts and found.shape[2:] == tensor.shape[2:]:
            values[key] = adapt_first_convolution(found, tensor.shape[1])
            notes.append(f"{key}: {found.shape[1]} channels in the file, {tensor.shape[1]} here")
        else:
            notes.append(f"{key}: {tuple(found.shape)} in the file, {tuple(tensor.shape)} here")
    unused = [k for k in candidate if k not in own and not k.endswith("num_batches_tracked")]
    report = TransferReport(
        source=file,
        matched=tuple(values),
        missing=tuple(key for key in own if key not in values),
        unused=tuple(unused),
        notes=(
            *notes[:_MAX_NAMES],
            *([f"and {len(notes) - _MAX_NAMES} more"] * (len(notes) > _MAX_NAMES)),
        ),
    )
    return report, values


def _list_names(keys: tuple[str, ...]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _MAX_NAMES} more" if len(keys) > _MAX_NAMES else ""
    return f" ({', '.join(keys[:_MAX_NAMES])}{more})"

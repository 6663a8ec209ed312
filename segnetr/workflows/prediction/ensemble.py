"""Combine several models: as an ensemble, or by averaging their weights (soup)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from segnetr.engine.training.checkpoint import read_best, read_run_checkpoint
from segnetr.engine.training.fold_dir import FoldDir, is_cross_validation
from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import ModelFileError, UsageError
from segnetr.outputs.models.model_file import ModelCard, load_model, read_model, write_model

Ensemble = Literal["mean", "vote", "soup"]
_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """A network and its origin.

    Attributes:
        path: Run or model folder.
        card: Card of the model.
        network: In evaluation mode, on the CPU.
    """

    path: Path
    card: ModelCard
    network: nn.Module


def expand_folds(paths: Sequence[Path]) -> list[Path]:
    """Replace the folder of a cross-validation by the runs of its folds.

    Raises:
        ModelFileError: If a fold is not finished.
    """
    return [
        model
        for path in paths
        for model in (FoldDir(path).models() if is_cross_validation(path) else [path])
    ]


def load_members(paths: Sequence[Path]) -> list[Member]:
    """Read models that can form an ensemble.

    They may use different encoders, image sizes and normalizations but must share the same classes.

    Args:
        paths: Runs, model folders or folders of cross-validations.

    Raises:
        ModelFileError: If one is invalid, or they do not fit together.
    """
    members = []
    for path in expand_folds(paths):
        card, network = load_model(path)
        members.append(Member(path=path, card=card, network=network))
    first = members[0]
    for other in members[1:]:
        _compare(first.path, _describe_output(first.card), other.path, _describe_output(other.card))
    return members


def mix_members(paths: Sequence[Path]) -> Member:
    """Average the weights of models of one architecture.

    The result takes the time of one network and works well if all models were fine-tuned from the
    same start. With different starts it does not work. Running statistics of batch norms are
    averaged as well, which is only right if they are close.

    Args:
        paths: As in `load_members`, or the checkpoints of finished runs (`RUN/checkpoints/best`,
            `last`, `previous`), of which the moving average is used if there is one.

    Raises:
        ModelFileError: If one is invalid, or their architectures or settings differ.
        UsageError: If there is only one.

    Source:
        Wortsman et al., Model soups, arXiv:2203.05482, section 2 (uniform soup).
    """
    models = expand_folds(paths)
    if len(models) < 2:
        raise UsageError(f"{models[0]}: a soup needs several models; pass more than one")
    mean: dict[str, Tensor] = {}
    card, network = load_model(_find_run(models[0]))
    for number, path in enumerate(models):
        other, weights = _read_weights(path)
        _compare(models[0], _describe_network(card), path, _describe_network(other))
        _add_weights(mean, weights, path, number)
    kinds = network.state_dict()
    network.load_state_dict({name: mean[name].to(kinds[name].dtype) for name in kinds})
    mixed = replace(card, split_sha256="", scores={})
    return Member(path=models[0], card=mixed, network=network)


def write_soup(paths: Sequence[Path], out: Path) -> Member:
    """Average the weights of models and write them as a model folder.

    Raises:
        ModelFileError: As `mix_members`.
        WriteError: If it cannot be written.
    """
    mixed = mix_members(paths)
    write_model(out, mixed.network.state_dict(), card=mixed.card)
    return mixed


def _find_run(path: Path) -> Path:
    """Return the run that a checkpoint belongs to, or any other path unchanged."""
    return path.parents[1] if path.parent.name == _CHECKPOINTS and path.is_dir() else path


def _read_weights(path: Path) -> tuple[ModelCard, Mapping[str, Tensor]]:
    card, weights = read_model(_find_run(path))
    if _find_run(path) == path:
        return card, weights
    if path.name == RunDir(_find_run(path)).best.name:
        return card, read_best(path).weights
    checkpoint = read_run_checkpoint(path)
    return card, checkpoint.weights if checkpoint.average is None else checkpoint.average


def _add_weights(
    mean: dict[str, Tensor], weights: Mapping[str, Tensor], path: Path, number: int
) -> None:
    """Update the running mean with the next model. Counters stay those of the first model."""
    for name, value in weights.items():
        if number == 0:
            mean[name] = value.double() if value.is_floating_point() else value
        elif name not in mean or mean[name].shape != value.shape:
            raise ModelFileError(
                f"{path}: its {name} differs from that of the first model; a soup needs one "
                "architecture, use --ensemble mean"
            )
        elif value.is_floating_point():
            mean[name] += (value.double() - mean[name]) / (number + 1)


def _describe_output(card: ModelCard) -> Mapping[str, object]:
    """Return the properties that ensemble members must share."""
    return {
        "classes": card.classes,
        "channels of a file": card.file_channels,
        "channels of a volume": card.volume_channels,
        "axis of slices": card.slices.axis,
    }


def _describe_network(card: ModelCard) -> Mapping[str, object]:
    """Return the properties that models must share for a mean of their weights."""
    return {
        "architecture": card.architecture,
        "classes": card.classes,
        "channels": card.in_channels,
        "image size": card.image_size,
        "intensity": card.intensity,
        "slices": card.slices,
    }


def _compare(
    first: Path, wanted: Mapping[str, object], path: Path, found: Mapping[str, object]
) -> None:
    for name, value in wanted.items():
        if found[name] != value:
            raise ModelFileError(
                f"{path}: its {name} {_shorten(found[name])} differs from {_shorten(value)} of "
                f"{first}; pass models of one kind as --model"
            )


def _shorten(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"'{text if len(text) <= 100 else text[:100] + '...'}'"

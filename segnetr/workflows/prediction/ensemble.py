"""Several models as one: answering together, or their weights averaged into one network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from segnetr.engine.training.checkpoint import read_best, read_checkpoint
from segnetr.engine.training.fold_dir import FoldDir, is_cross_validation
from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import ModelFileError, UsageError
from segnetr.outputs.models.model_file import ModelCard, load_model, read_model, write_model

Ensemble = Literal["mean", "vote", "soup"]
_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """One network and where it comes from.

    Attributes:
        path: The run or model folder.
        card: What goes with it.
        network: In evaluation mode, on the CPU.
    """

    path: Path
    card: ModelCard
    network: nn.Module


def list_models(paths: Sequence[Path]) -> list[Path]:
    """Put the runs of all folds in the place of a cross-validation's folder.

    Raises:
        ModelFileError: If a fold is not done.
    """
    return [
        model
        for path in paths
        for model in (FoldDir(path).models() if is_cross_validation(path) else [path])
    ]


def load_members(paths: Sequence[Path]) -> list[Member]:
    """Read models that can answer about the same files.

    Their encoders, image sizes and ways of reading gray values may differ; their classes may not.

    Args:
        paths: Runs, model folders or folders of cross-validations.

    Raises:
        ModelFileError: If one cannot be trusted, or they do not belong together.
    """
    members = []
    for path in list_models(paths):
        card, network = load_model(path)
        members.append(Member(path=path, card=card, network=network))
    first = members[0]
    for other in members[1:]:
        _compare(
            first.path, _describe_answers(first.card), other.path, _describe_answers(other.card)
        )
    return members


def mix_members(paths: Sequence[Path]) -> Member:
    """Average the weights of models of one architecture, number by number.

    It takes the time of one network where a mean takes that of all, and answers well where the
    models are ends of trainings from one start; of models with unlike starts it answers nothing.
    Running means of batch norms are averaged as well, which is right only where they are close.

    Args:
        paths: As in `load_members`, or the checkpoints of finished runs (`RUN/checkpoints/best`,
            `last`, `previous`), of which the moving average is taken where there is one.

    Raises:
        ModelFileError: If one cannot be trusted, or their architectures or settings differ.
        UsageError: If there is only one.

    Source:
        Wortsman et al., Model soups, arXiv:2203.05482, section 2 (uniform soup).
    """
    models = list_models(paths)
    if len(models) < 2:
        raise UsageError(f"{models[0]}: a soup is made of several models; give more than one")
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
    """Give the run that a checkpoint belongs to; any other path as it is."""
    return path.parents[1] if path.parent.name == _CHECKPOINTS and path.is_dir() else path


def _read_weights(path: Path) -> tuple[ModelCard, Mapping[str, Tensor]]:
    card, weights = read_model(_find_run(path))
    if _find_run(path) == path:
        return card, weights
    if path.name == RunDir(_find_run(path)).best.name:
        return card, read_best(path).weights
    checkpoint = read_checkpoint(path)
    return card, checkpoint.weights if checkpoint.average is None else checkpoint.average


def _add_weights(
    mean: dict[str, Tensor], weights: Mapping[str, Tensor], path: Path, number: int
) -> None:
    """Move the mean of the models before towards the next one; counters stay those of the first."""
    for name, value in weights.items():
        if number == 0:
            mean[name] = value.double() if value.is_floating_point() else value
        elif name not in mean or mean[name].shape != value.shape:
            raise ModelFileError(
                f"{path}: its {name} is not that of the first model; weights can be mixed of one "
                "architecture only, use --ensemble mean"
            )
        elif value.is_floating_point():
            mean[name] += (value.double() - mean[name]) / (number + 1)


def _describe_answers(card: ModelCard) -> Mapping[str, object]:
    """Give what models have to share to answer about one file together."""
    return {
        "classes": card.classes,
        "channels of a file": card.file_channels,
        "channels of a volume": card.volume_channels,
        "axis of slices": card.slices.axis,
    }


def _describe_network(card: ModelCard) -> Mapping[str, object]:
    """Give what models have to share to have one mean of their weights."""
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
                f"{first}; give models of one kind as --model"
            )


def _shorten(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"'{text if len(text) <= 100 else text[:100] + '...'}'"

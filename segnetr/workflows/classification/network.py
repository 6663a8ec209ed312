"""From the settings of a backbone to a network, and from a finished one to its model folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybrid_backbones import Backbone, create_model, list_models
from hybrid_backbones.registry import get_spec
from hybrid_backbones.weights import CheckpointError, load_published, read_checkpoint
from segnetr.config.load import parse_plain, plain
from segnetr.config.schema.classification import (
    BackboneConfig,
    ClassifyConfig,
    ClassifyPredictConfig,
)
from segnetr.data.case import Split
from segnetr.data.classification.case import ClassificationSet
from segnetr.engine.inference.classifier import Classifier
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.runtime import choose_device
from segnetr.engine.training.trainer import TrainResult
from segnetr.errors import ModelFileError, UsageError
from segnetr.outputs.models.classifier_file import (
    ClassifierCard,
    as_fields,
    load_classifier,
    read_classifier,
    write_classifier,
)
from segnetr.outputs.models.provenance import collect_versions

_SMALL_SIDE = 32
_LEAST_LIKENESS = 0.5


def check_backbone(config: ClassifyConfig) -> None:
    """Refuse a backbone that is not there or does not take such images, before anything else.

    Raises:
        UsageError: If the name is unknown (the nearest is given), or the entry is made for 32 x 32
            images and gets others.
    """
    name, size = config.backbone.name, config.train.image_size
    try:
        entry = get_spec(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if entry.image_size == _SMALL_SIDE and size != (_SMALL_SIDE, _SMALL_SIDE):
        raise UsageError(
            f"{name} is made for CIFAR's {_SMALL_SIDE} x {_SMALL_SIDE} images, not "
            f"{size[0]} x {size[1]}; use --set train.image_size={_SMALL_SIDE}, or another backbone"
        )
    if config.train.batch_size < 2:
        raise UsageError(
            "--batch-size 1: the batch normalization of these networks needs two images at least"
        )


def build_backbone(
    config: BackboneConfig, *, in_channels: int, num_classes: int, drop_path: float | None
) -> Backbone:
    """Build a backbone with a classifier, from scratch.

    Args:
        config: Its name and the changed fields.
        in_channels: Channels of the images.
        num_classes: Width of the classifier.
        drop_path: Rate of stochastic depth; None: the entry's own.

    Raises:
        UsageError: If the name or a field is unknown, or a value does not fit.
    """
    fields = {**config.overrides, **({} if drop_path is None else {"drop_path": drop_path})}
    try:
        network: Backbone = create_model(
            config.name, in_channels=in_channels, num_classes=num_classes, **as_fields(fields)
        )
    except (ValueError, TypeError, ZeroDivisionError, RuntimeError) as error:
        raise UsageError(f"backbone {config.name}: {' '.join(str(error).split())}") from None
    return network


def start_from_published(network: Backbone, path: Path) -> list[str]:
    """Put a published checkpoint into a backbone, and give what was done to make it fit.

    Raises:
        ModelFileError: If it is missing, torn, holds code, or is of another network.
    """
    try:
        state = read_checkpoint(path)
    except CheckpointError as error:
        raise ModelFileError(str(error)) from None
    try:
        return list(load_published(network, state).notes)
    except CheckpointError as error:
        guess = guess_network(state)
        looks = f"; it looks like {guess}" if guess else ""
        raise ModelFileError(f"{path}: {error}{looks}") from None


def guess_network(state: Mapping[str, Tensor]) -> str | None:
    """Name the backbone whose own or published names and shapes a checkpoint has, if one has most.

    Args:
        state: Tensors by name.
    """
    best, most = None, _LEAST_LIKENESS
    for name in list_models():
        with torch.device("meta"):
            network = create_model(name, num_classes=1)
        own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        renamed = network.convert_published(dict(state)) if own.keys() - state.keys() else state
        same = sum(own.get(key) == tuple(value.shape) for key, value in renamed.items())
        likeness = same / max(len(own), len(renamed))
        if likeness > most:
            best, most = name, likeness
    return best


def start_from_run(network: Backbone, path: Path) -> list[str]:
    """Put the weights of an earlier classifier into a backbone; another head stays as it is.

    Returns:
        What was left out, one line each.

    Raises:
        ModelFileError: If the run has no classifier that can be trusted, or one of another
            backbone.
    """
    card, weights = read_classifier(path)
    own = network.state_dict()
    head = set(getattr(network, "head_keys", ()))
    notes = []
    for name in sorted(head & weights.keys() & own.keys()):
        if weights[name].shape != own[name].shape:
            notes.append(f"{name}: {len(weights[name])} classes there, {len(own[name])} here; anew")
            weights[name] = own[name]
    wrong = _find_misfits(own, weights)
    if wrong:
        raise ModelFileError(
            f"{path}: its weights are of {card.backbone} and do not fit ({len(wrong)} of "
            f"{len(own)}, as {wrong[0]}); give train.weights of the same --backbone and channels"
        )
    network.load_state_dict(weights)
    return notes


def write_run_classifier(
    run: RunDir,
    config: ClassifyConfig,
    *,
    opened: ClassificationSet,
    split: Split,
    result: TrainResult,
) -> None:
    """Write the weights a training ends with, and what is needed to apply them.

    Raises:
        ModelFileError: If the run's checkpoints cannot be read.
        WriteError: If the folder cannot be written.
    """
    score = {} if result.best_score is None else {config.train.monitor: result.best_score}
    card = ClassifierCard(
        task="classification",
        backbone=config.backbone.name,
        overrides=plain(config.backbone.overrides),
        classes=opened.classes,
        num_classes=len(opened.classes),
        several=opened.kind == "multi",
        in_channels=opened.in_channels,
        image_size=config.train.image_size,
        intensity=config.data.intensity,
        fitting=config.augment,
        predict=config.predict,
        dataset=opened.name,
        data_license=opened.license,
        split_sha256=split.sha256,
        scores={f"validation_{name}": value for name, value in score.items()},
        versions=collect_versions(),
    )
    write_classifier(run.model, run.load_final_weights(keep=config.train.keep), card=card)


def open_classifier(
    path: Path, *, changes: Mapping[str, Any] | None = None, device: str = "auto"
) -> tuple[ClassifierCard, Classifier]:
    """Load a classifier once, ready for any number of files.

    Args:
        path: A run, or a model folder.
        changes: Settings put over the model's own `predict` section.
        device: Where it runs.

    Raises:
        ModelFileError: If the model is missing, torn, changed or foreign.
        UsageError: If a changed setting does not fit, or there is no such device.
    """
    card, network = load_classifier(path)
    settings: ClassifyPredictConfig = parse_plain(
        ClassifyPredictConfig, {**plain(card.predict), **(changes or {})}
    )
    classifier = Classifier(
        network,
        config=settings,
        several=card.several,
        fitting=card.fitting,
        intensity=card.intensity,
        image_size=card.image_size,
        device=choose_device(device),
    )
    return card, classifier


def _find_misfits(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    misfits = {
        name for name, value in weights.items() if name not in own or own[name].shape != value.shape
    }
    return sorted(misfits | (own.keys() - weights.keys()))

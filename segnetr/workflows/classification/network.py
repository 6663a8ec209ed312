"""Build backbones with a classifier, load start weights, and write and open classifiers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybrid_backbones import Backbone, create_model, list_models
from hybrid_backbones.registry import get_spec
from hybrid_backbones.weights import CheckpointError, load_published, read_checkpoint
from segnetr.config.load import parse_plain, to_plain
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
_MIN_MATCH = 0.5


def check_backbone(config: ClassifyConfig) -> None:
    """Check that the backbone exists and accepts images of the training size.

    Raises:
        UsageError: If the name is unknown (suggests the closest one), the backbone is for 32 x 32
            images and the training size differs, or the batch size is 1.
    """
    name, size = config.backbone.name, config.train.image_size
    try:
        entry = get_spec(name)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if entry.image_size == _SMALL_SIDE and size != (_SMALL_SIDE, _SMALL_SIDE):
        raise UsageError(
            f"{name} is for CIFAR images of {_SMALL_SIDE} x {_SMALL_SIDE} pixels, not "
            f"{size[0]} x {size[1]}; use --set train.image_size={_SMALL_SIDE}, or another backbone"
        )
    if config.train.batch_size < 2:
        raise UsageError("--batch-size 1: batch normalization needs at least two images")


def build_backbone(
    config: BackboneConfig, *, in_channels: int, num_classes: int, drop_path: float | None
) -> Backbone:
    """Build a randomly initialized backbone with a classifier.

    Args:
        config: Its name and the changed fields.
        in_channels: Channels of the images.
        num_classes: Outputs of the classifier.
        drop_path: Rate of stochastic depth; None: the default of the backbone.

    Raises:
        UsageError: If the name or a field is unknown, or a value is invalid.
    """
    fields = {**config.overrides, **({} if drop_path is None else {"drop_path": drop_path})}
    try:
        network: Backbone = create_model(
            config.name, in_channels=in_channels, num_classes=num_classes, **as_fields(fields)
        )
    except (ValueError, TypeError, ZeroDivisionError, RuntimeError) as error:
        raise UsageError(f"backbone {config.name}: {' '.join(str(error).split())}") from None
    return network


def load_pretrained(network: Backbone, path: Path) -> list[str]:
    """Load a published checkpoint into a backbone, and return messages about adapted tensors.

    Raises:
        ModelFileError: If it is missing, damaged, contains code, or belongs to another network.
    """
    try:
        state = read_checkpoint(path)
    except CheckpointError as error:
        raise ModelFileError(str(error)) from None
    try:
        return list(load_published(network, state).notes)
    except CheckpointError as error:
        guess = guess_network(state)
        hint = f"; it looks like {guess}" if guess else ""
        raise ModelFileError(f"{path}: {error}{hint}") from None


def guess_network(state: Mapping[str, Tensor]) -> str | None:
    """Return the backbone whose tensor names and shapes match a checkpoint best.

    Args:
        state: Tensors by name, as in our or in the published checkpoints.

    Returns:
        Its name, or None if no backbone matches at least half of the tensors.
    """
    best, highest = None, _MIN_MATCH
    for name in list_models():
        with torch.device("meta"):
            network = create_model(name, num_classes=1)
        own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        renamed = network.convert_published(dict(state)) if own.keys() - state.keys() else state
        same = sum(own.get(key) == tuple(value.shape) for key, value in renamed.items())
        match = same / max(len(own), len(renamed))
        if match > highest:
            best, highest = name, match
    return best


def load_run_weights(network: Backbone, path: Path) -> list[str]:
    """Load the weights of an earlier classifier into a backbone, except a head of another size.

    Returns:
        Messages about tensors that were not loaded.

    Raises:
        ModelFileError: If the run has no intact classifier, or one of another backbone.
    """
    card, weights = read_classifier(path)
    own = network.state_dict()
    head = set(getattr(network, "head_keys", ()))
    notes = []
    for name in sorted(head & weights.keys() & own.keys()):
        if weights[name].shape != own[name].shape:
            notes.append(
                f"{name}: {len(weights[name])} classes in the file, {len(own[name])} here; "
                "not loaded"
            )
            weights[name] = own[name]
    wrong = _find_misfits(own, weights)
    if wrong:
        raise ModelFileError(
            f"{path}: its weights are of {card.backbone} and do not fit ({len(wrong)} of "
            f"{len(own)}, as {wrong[0]}); use train.weights of the same --backbone and channels"
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
    """Write the model folder of a finished training: weights and model card.

    Raises:
        ModelFileError: If the run's checkpoints cannot be read.
        WriteError: If the folder cannot be written.
    """
    score = {} if result.best_score is None else {config.train.monitor: result.best_score}
    card = ClassifierCard(
        task="classification",
        backbone=config.backbone.name,
        overrides=to_plain(config.backbone.overrides),
        classes=opened.classes,
        num_classes=len(opened.classes),
        multi_label=opened.kind == "multi",
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
    """Load a classifier for prediction.

    Args:
        path: A run, or a model folder.
        changes: Settings that override the `predict` section of the model.
        device: Device of the network.

    Raises:
        ModelFileError: If the model is missing, truncated, modified or not a classifier.
        UsageError: If a setting is invalid, or there is no such device.
    """
    card, network = load_classifier(path)
    settings: ClassifyPredictConfig = parse_plain(
        ClassifyPredictConfig, {**to_plain(card.predict), **(changes or {})}
    )
    classifier = Classifier(
        network,
        config=settings,
        multi_label=card.multi_label,
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

"""The model folder: written at the end of a training, opened by all that applies a network."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from segnetr.config.load import parse_plain, plain
from segnetr.config.schema import PredictConfig, RunConfig
from segnetr.data.case import DatasetSpec, Split
from segnetr.data.readers import ImageFile, read_image
from segnetr.engine.fold_dir import is_cross_validation
from segnetr.engine.predictor import Predictor
from segnetr.engine.run_dir import RunDir
from segnetr.engine.runtime import choose_device
from segnetr.engine.trainer import TrainResult
from segnetr.errors import ModelFileError, UsageError
from segnetr.outputs.model_file import ModelCard, load_model, read_model, write_model
from segnetr.outputs.provenance import collect_versions
from segnetr.workflows.ensemble import load_ensemble


def write_run_model(
    run: RunDir, config: RunConfig, *, spec: DatasetSpec, split: Split, result: TrainResult
) -> None:
    """Write the weights a training ends with, and what is needed to apply them.

    These are the weights with the best validation score, or the last ones where `train.keep` says
    so or there was no validation.
    """
    architecture = config.model
    if architecture.architecture == "segnetr" and architecture.native_size is None:
        architecture = replace(architecture, native_size=config.train.image_size)
    card = ModelCard(
        architecture=architecture,
        classes=spec.classes,
        in_channels=spec.in_channels * config.data.slices.together,
        image_size=config.train.image_size,
        intensity=config.data.intensity,
        predict=config.predict,
        slices=config.data.slices,
        spatial_dims=spec.spatial_dims,
        dataset=spec.name,
        data_licence=spec.licence,
        split_sha256=split.sha256,
        scores={} if result.best_score is None else {"validation_dice": result.best_score},
        versions=collect_versions(),
    )
    write_model(run.model, run.load_final_weights(keep=config.train.keep), card=card)


def start_from(model: nn.Module, path: Path) -> None:
    """Put the weights of an earlier run into a network of the same architecture.

    Raises:
        ModelFileError: If the run has no model that can be trusted, or one of another shape.
    """
    _, weights = read_model(path)
    own = model.state_dict()
    wrong = sorted(
        {
            name
            for name, value in weights.items()
            if name not in own or own[name].shape != value.shape
        }
        | (set(own) - set(weights))
    )
    if wrong:
        raise ModelFileError(
            f"{path}: its weights are of another network ({len(wrong)} of {len(own)} do not fit, "
            f"as {wrong[0]}); give train.weights of the same --model, classes and image size"
        )
    model.load_state_dict(weights)


def read_for(card: ModelCard, path: Path, *, max_pixels: int) -> ImageFile:
    """Read a file the way a model takes it.

    Raises:
        ReadError: As `segnetr.data.readers.read_image`.
    """
    return read_image(
        path,
        channels=card.file_channels,
        volume_channels=card.volume_channels,
        max_pixels=max_pixels,
    )


def open_predictor(
    path: Path, *, changes: Mapping[str, Any] | None = None, device: str = "auto"
) -> tuple[ModelCard, Predictor]:
    """Load a model once, ready for any number of files.

    Args:
        path: A run, a model folder, or the folder of a cross-validation, whose networks answer
            together.
        changes: Settings put over the model's own `predict` section.
        device: Where it runs.

    Raises:
        ModelFileError: If the model is missing, torn, changed or foreign.
        UsageError: If a changed setting does not fit, or there is no such device.
    """
    is_ensemble = is_cross_validation(path)
    card, network = load_ensemble(path) if is_ensemble else load_model(path)
    if (changes or {}).get("choose_post"):
        raise UsageError("predict.choose_post is for segnetr train: it needs validation cases")
    config: PredictConfig = parse_plain(PredictConfig, {**plain(card.predict), **(changes or {})})
    predictor = Predictor(
        network,
        config=config,
        intensity=card.intensity,
        image_size=card.image_size,
        num_classes=len(card.classes),
        channels=card.in_channels,
        slices=card.slices,
        device=choose_device(device),
    )
    return card, predictor

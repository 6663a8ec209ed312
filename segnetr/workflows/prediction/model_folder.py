"""Write the model folder at the end of a training, and open it for prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from segnetr.config.load import parse_plain, to_plain
from segnetr.config.schema.segmentation import PredictConfig, RunConfig
from segnetr.data.case import DatasetSpec, Split
from segnetr.data.readers import read_files as readers
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.data.readers.read_files import read_image
from segnetr.engine.inference.memory import MemoryLimit
from segnetr.engine.inference.predictor import Predictor
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.runtime import choose_device
from segnetr.errors import ModelFileError, UsageError
from segnetr.outputs.models.model_file import ModelCard, read_model, write_model
from segnetr.outputs.models.provenance import collect_versions
from segnetr.workflows.prediction.ensemble import Ensemble, Member, load_members, mix_members
from segnetr.workflows.prediction.model_quality import (
    add_quality_models,
    can_detect_ood,
    find_obstacle,
    wants_quality,
)

if TYPE_CHECKING:
    # The trainer imports tensorboard, which prediction does not need.
    from segnetr.engine.training.trainer import TrainResult


def write_run_model(
    run: RunDir, config: RunConfig, *, spec: DatasetSpec, split: Split, result: "TrainResult"
) -> None:
    """Write the final weights of a training and everything needed to apply them.

    These are the weights with the best validation score, or the last ones if `train.keep` requests
    them or there was no validation.
    """
    architecture = config.model
    if architecture.architecture == "segnetr" and architecture.native_size is None:
        architecture = replace(architecture, native_size=config.train.image_size)
    card = ModelCard(
        architecture=architecture,
        classes=spec.classes,
        in_channels=spec.in_channels * config.data.slices.num_slices,
        image_size=config.train.image_size,
        intensity=config.data.intensity,
        predict=config.predict,
        slices=config.data.slices,
        spatial_dims=spec.spatial_dims,
        dataset=spec.name,
        data_license=spec.license,
        split_sha256=split.sha256,
        scores={} if result.best_score is None else {"validation_dice": result.best_score},
        versions=collect_versions(),
    )
    write_model(run.model, run.load_final_weights(keep=config.train.keep), card=card)


def start_from(model: nn.Module, path: Path) -> None:
    """Load the weights of an earlier run into a network of the same architecture.

    Raises:
        ModelFileError: If the run has no valid model, or one of another shape.
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
            f"for example {wrong[0]}); set train.weights to a run with the same --model, classes "
            "and image size"
        )
    model.load_state_dict(weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFormat:
    """Channels that a model expects, read from its card once and not for every file.

    Attributes:
        file_channels: Channels of an image.
        volume_channels: Values per voxel of a volume.
    """

    file_channels: int
    volume_channels: int

    @classmethod
    def of(cls, card: ModelCard) -> "InputFormat":
        """Return the input format of a model."""
        return cls(file_channels=card.file_channels, volume_channels=card.volume_channels)


def read_for(
    card: ModelCard | InputFormat, path: Path, *, max_pixels: int, series: str | None = None
) -> ImageFile:
    """Read a file or a DICOM series in the format that a model expects.

    Raises:
        ReadError: As `segnetr.data.readers.read_image`.
    """
    return read_image(
        path,
        channels=card.file_channels,
        volume_channels=card.volume_channels,
        series=series,
        max_pixels=max_pixels,
    )


def open_model_input(
    card: ModelCard | InputFormat,
    path: Path,
    *,
    max_pixels: int,
    limit: MemoryLimit | None = None,
    series: str | None = None,
) -> ImageFile | VolumeFile:
    """Open a file in the format that a model expects. NIfTI stays on the disk, others are read.

    Args:
        card: Card or input format of the model.
        path: The file.
        max_pixels: As in `read_image`, for images.
        limit: Rejects images that do not fit into memory, and volumes that are not NIfTI.
        series: As in `read_image`.

    Raises:
        ReadError: If it cannot be read, is invalid or too large.
    """
    return readers.open_image(
        path,
        channels=card.file_channels,
        volume_channels=card.volume_channels,
        series=series,
        max_pixels=max_pixels,
        check_pixels=None if limit is None else limit.check_image,
    )


def open_predictor(
    path: Path, *, changes: Mapping[str, Any] | None = None, device: str = "auto"
) -> tuple[ModelCard, Predictor]:
    """Load a model once, ready for any number of files.

    Args:
        path: A run, a model folder, or the folder of a cross-validation, whose networks form an
            ensemble.
        changes: Settings that override the model's own `predict` section.
        device: Device of the network.

    Raises:
        ModelFileError: If the model is missing, truncated, changed or unrelated.
        UsageError: If a setting is invalid, or there is no such device.
    """
    return open_predictors([path], changes=changes, device=device)


def open_predictors(
    paths: Sequence[Path],
    *,
    ensemble: Ensemble = "mean",
    changes: Mapping[str, Any] | None = None,
    device: str = "auto",
) -> tuple[ModelCard, Predictor]:
    """Load one model, or several as an ensemble.

    Args:
        paths: Each as in `open_predictor`.
        ensemble: Mean of their probabilities, a vote, or one network with their mean weights.
        changes: As in `open_predictor`, for each of them.
        device: As in `open_predictor`.

    Returns:
        The card of the first model, and the predictor. Postprocessing is that of the first model.

    Raises:
        ModelFileError: As `open_predictor`, or if they do not fit together.
        UsageError: As `open_predictor`.
    """
    members = [mix_members(paths)] if ensemble == "soup" else load_members(paths)
    predictors = [
        _apply(member, changes=changes or {}, device=choose_device(device)) for member in members
    ]
    predictor = predictors[0]
    if len(predictors) > 1:
        combination = "vote" if ensemble == "vote" else "mean"
        predictor = Predictor.ensemble(predictors, combination=combination)  # type: ignore[arg-type]
    settings = changes or {}
    if wants_quality(paths, settings):
        obstacle = find_obstacle(paths, ensemble=ensemble, changes=settings)
        if obstacle is None or can_detect_ood(paths, ensemble=ensemble, changes=settings):
            predictor = add_quality_models(predictor, paths, ood_only=obstacle is not None)
    if len(predictors) == 1:
        return members[0].card, predictor
    card = replace(members[0].card, split_sha256="", scores={})
    return card, predictor


def _apply(member: Member, *, changes: Mapping[str, Any], device: torch.device) -> Predictor:
    if changes.get("search_postprocessing"):
        raise UsageError(
            "predict.search_postprocessing is for segnetr train: it needs validation cases"
        )
    card = member.card
    config: PredictConfig = parse_plain(PredictConfig, {**to_plain(card.predict), **changes})
    return Predictor(
        member.network,
        config=config,
        intensity=card.intensity,
        image_size=card.image_size,
        num_classes=len(card.classes),
        channels=card.in_channels,
        slices=card.slices,
        device=device,
    )

"""What a training on slices of volumes does differently from one on images."""

from collections.abc import Callable, Iterable, Sequence

from torch import nn

from segnetr.config.schema.segmentation import PredictConfig, RunConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.cache.segmentation import CachedCase, CacheSettings
from segnetr.data.cache.volumes import VolumeSettings
from segnetr.data.case import Batch, Case, DatasetSpec
from segnetr.data.loading.loaders import Sample
from segnetr.data.loading.volume_slices import list_slices
from segnetr.engine.inference.predictor import Predictor
from segnetr.engine.training.tasks import SegmentationTask
from segnetr.engine.training.volume_task import VolumeTask, load_volumes
from segnetr.errors import DataError, UsageError
from segnetr.losses import build_loss

# Larger than any slice: nothing is reduced.
_NO_REDUCTION = 1 << 30


def check_settings(spec: DatasetSpec, config: RunConfig) -> None:
    """Refuse settings that do not fit what a data set holds, before anything is decoded.

    Raises:
        UsageError: With the setting and what it may be.
    """
    data = config.data
    if spec.spatial_dims == 2:
        if data.slices != SliceConfig():
            raise UsageError(f"data.slices is for volumes; {spec.title} holds images")
        if data.intensity.is_of_volumes:
            raise UsageError(
                f"data.intensity.kind '{data.intensity.kind}' is for volumes; {spec.title} holds "
                "images: fixed, per_image or per_image_lit"
            )
        return
    if not data.intensity.is_of_volumes:
        raise UsageError(
            f"data.intensity.kind '{data.intensity.kind}' is for images; {spec.title} holds "
            "volumes: per_volume, percentiles or window (--set data.intensity.kind=percentiles)"
        )
    if data.slices.spacing_mm is not None and config.predict.mode != "window":
        raise UsageError(
            "data.slices.spacing_mm needs --set predict.mode=window: a slice that is squashed to "
            "the image size has no pixel size of its own"
        )


def count_channels(spec: DatasetSpec, config: RunConfig) -> int:
    """Give the channels a network takes: those of a file, for each slice it sees at once."""
    return spec.in_channels * config.data.slices.num_slices


def cuts_windows(spec: DatasetSpec, config: RunConfig) -> bool:
    """Say whether training cuts windows out of slices, because prediction slides them."""
    return spec.spatial_dims == 3 and config.predict.mode == "window"


def choose_cache_settings(spec: DatasetSpec, config: RunConfig) -> CacheSettings:
    """Choose what the cached copies of a data set are like."""
    data = config.data
    volume = None
    if spec.spatial_dims == 3:
        volume = VolumeSettings(
            axis=data.slices.axis, spacing_mm=data.slices.spacing_mm, intensity=data.intensity
        )
    return CacheSettings(
        side=_NO_REDUCTION if cuts_windows(spec, config) else _cache_side(config),
        channels=spec.in_channels,
        classes=len(spec.classes),
        values=spec.mask_values,
        max_pixels=data.max_pixels,
        volume=volume,
    )


def list_samples(
    spec: DatasetSpec, config: RunConfig, entries: Sequence[CachedCase]
) -> Sequence[Sample]:
    """Give the training samples of cached cases: themselves, or their slices.

    Raises:
        DataError: If no training volume has any foreground.
    """
    if spec.spatial_dims == 2:
        return entries
    if entries and not any(any(entry.has_foreground) for entry in entries):
        raise DataError(
            f"none of the {len(entries)} training volumes of {spec.name} has any foreground: their "
            "masks are empty; check them, or the split"
        )
    slices = config.data.slices
    return list_slices(entries, neighbors=slices.neighbors, empty_share=slices.empty_share)


def build_task(spec: DatasetSpec, config: RunConfig, *, device: str) -> SegmentationTask:
    """Build the loss and the way of validating; volumes are judged on the grid of their files."""
    classes = len(spec.classes)
    loss = build_loss(config.train.loss, num_classes=classes)
    if spec.spatial_dims == 2:
        return SegmentationTask(loss, num_classes=classes)
    # Without mirrorings, which would make each validation four times as long.
    settings = PredictConfig(
        mode=config.predict.mode,
        overlap=config.predict.overlap,
        window_batch=config.predict.window_batch,
        weights=config.predict.weights,
    )

    def open_predictor(model: nn.Module) -> Predictor:
        return Predictor(
            model,
            config=settings,
            intensity=config.data.intensity,
            image_size=config.train.image_size,
            num_classes=classes,
            channels=count_channels(spec, config),
            slices=config.data.slices,
            device=device,
        )

    return VolumeTask(loss, num_classes=classes, open_predictor=open_predictor)


def load_validation_volumes(
    spec: DatasetSpec, config: RunConfig, cases: Sequence[Case]
) -> Callable[[], Iterable[Batch]]:
    """Give a loader of whole volumes."""
    return lambda: load_volumes(
        cases,
        channels=spec.in_channels,
        classes=len(spec.classes),
        values=spec.mask_values,
        max_pixels=config.data.max_pixels,
    )


def _cache_side(config: RunConfig) -> int:
    """Keep enough pixels for the usual zoom of the augmentation, not for its rare extremes."""
    return round(max(config.train.image_size) * min(max(1.0, config.augment.scale[1]), 1.5))

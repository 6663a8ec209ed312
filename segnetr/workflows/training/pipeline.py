"""The training pipeline of segmentation: cases -> cache -> loaders -> task.

`build_pipeline` returns an `ImagePipeline` for images or a `VolumePipeline` for volumes, which are
trained slice by slice. A pipeline decides everything that depends on the dataset: the input
channels, the cache settings, the training samples, the transforms, the loss and the validation.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

from segnetr.config.schema.segmentation import PredictConfig, RunConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.augmentation.transforms import evaluation_transform, training_transform
from segnetr.data.cache.segmentation import CachedCase, CacheSettings, build_cache
from segnetr.data.cache.volumes import VolumeSettings
from segnetr.data.case import SPLIT_NAMES, Batch, Case, Split
from segnetr.data.loading.loaders import Sample, evaluation_loader, training_loader
from segnetr.data.loading.volume_slices import list_slices
from segnetr.data.splits.content import CaseContent
from segnetr.data.validation.audit import Issue, check_pairs, check_patients
from segnetr.engine.training.runtime import Runtime
from segnetr.engine.training.tasks import SegmentationTask
from segnetr.engine.training.volume_task import (
    VolumeInferer,
    VolumeTask,
    build_inferer,
    load_volumes,
)
from segnetr.errors import DataError, UsageError
from segnetr.losses import build_loss
from segnetr.progress import Progress
from segnetr.workflows.datasets.loading import OpenedDataset
from segnetr.workflows.training.run_setup import build_sampler, reject_issues

# Larger than any slice: cached slices keep their size.
_NO_RESIZING = 1 << 30

LoadBatches = Callable[[], Iterable[Batch]]


class TrainingPipeline(ABC):
    """Everything that a trainer needs from a dataset.

    Args:
        opened: The dataset with its cases.
        config: The whole configuration.

    Attributes:
        opened: As above.
        spec: Description of the dataset.
        config: As above.
        cached: Cached copies of the valid cases by case id; filled by `cache_cases`.
        on_message: Receives lines for the user from the loaders.
    """

    def __init__(self, opened: OpenedDataset, config: RunConfig) -> None:
        self.opened, self.spec, self.config = opened, opened.spec, config
        self.cached: dict[str, CachedCase] = {}
        self.on_message: Callable[[str], None] = lambda _line: None

    @property
    @abstractmethod
    def in_channels(self) -> int:
        """Input channels of the network."""

    @property
    def num_classes(self) -> int:
        """Number of classes K, including the background."""
        return len(self.spec.classes)

    @abstractmethod
    def check_settings(self) -> None:
        """Reject settings that do not fit the dataset, before anything is decoded.

        Raises:
            UsageError: With the setting and its possible values.
        """

    @abstractmethod
    def cache_settings(self) -> CacheSettings:
        """Return the size and format of the cached copies."""

    @abstractmethod
    def list_samples(self, split: Split) -> Sequence[Sample]:
        """Return the samples of the cached training cases."""

    @abstractmethod
    def load_validation(self, split: Split) -> LoadBatches | None:
        """Return a function that loads all validation batches; None without validation cases."""

    @abstractmethod
    def build_task(self, *, device: str) -> SegmentationTask:
        """Build the loss and the validation."""

    @property
    def cases(self) -> list[Case]:
        """The valid cases, which are cached."""
        return [case for case in self.opened.cases if case.case_id in self.cached]

    def cache_cases(self, progress: Progress) -> list[Issue]:
        """Decode the cases that are not in the cache yet.

        Returns:
            The issues of the cases that cannot be used.

        Raises:
            DataError: If there are issues and `data.skip_invalid` is not set, or no case is left.
        """
        opened, data = self.opened, self.config.data
        issues = check_pairs(opened.cases) + check_patients(opened.cases)
        invalid = {issue.case_id for issue in issues}
        valid = [case for case in opened.cases if case.case_id not in invalid]
        with progress.task("decode", len(valid)) as advance:
            cache = build_cache(
                valid,
                self.cache_settings(),
                folder=data.cache_dir,
                workers=data.workers,
                progress=advance,
            )
        issues += cache.issues
        reject_issues(
            issues,
            opened.root,
            skip_invalid=data.skip_invalid,
            advice=f"See all with `segnetr data check --dataset {self.spec.name}`, or train "
            "without them: --skip-invalid",
        )
        if not cache.entries:
            raise DataError(f"{opened.root}: every case of {self.spec.name} has an issue")
        self.cached = dict(cache.entries)
        return issues

    def hash_cases(self, split: Split) -> CaseContent:
        """Return the hashes of the files of all cases of a split."""
        ids = {case_id for name in SPLIT_NAMES for case_id in split.ids(name)}
        return CaseContent({case_id: self.cached[case_id].hashes for case_id in sorted(ids)})

    def load_training(
        self, samples: Sequence[Sample], runtime: Runtime
    ) -> Callable[[int], Iterable[Batch]]:
        """Return a function from a step to the training batches of this process from there on."""
        settings, data = self.config.train, self.config.data
        transform = training_transform(
            self.config.augment,
            image_size=settings.image_size,
            intensity=data.intensity,
            channels=self.in_channels,
            color=self.spec.spatial_dims == 2,
            crop=self._crops_windows,
        )

        def load(start_step: int) -> Iterable[Batch]:
            sampler = build_sampler(settings, len(samples), runtime, start_step=start_step)
            return training_loader(
                samples,
                transform,
                sampler=sampler,
                workers=data.workers,
                seed=settings.seed,
                on_message=self.on_message,
            )

        return load

    @property
    def _crops_windows(self) -> bool:
        """Whether training samples are windows of slices, as in sliding-window prediction."""
        return False

    def _cache_side(self) -> int:
        """Return the shorter side of cached images in pixels.

        It suffices for the usual zoom of the augmentation; rare extremes are interpolated.
        """
        zoom = min(max(1.0, self.config.augment.scale[1]), 1.5)
        return round(max(self.config.train.image_size) * zoom)


class ImagePipeline(TrainingPipeline):
    """Trains on images, and validates on images at the training size."""

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.spec.in_channels

    def check_settings(self) -> None:
        """Reject settings for volumes."""
        data, title = self.config.data, self.spec.title
        if data.slices != SliceConfig():
            raise UsageError(f"data.slices is for volumes; {title} holds images")
        if data.intensity.is_of_volumes:
            raise UsageError(
                f"data.intensity.kind '{data.intensity.kind}' is for volumes; {title} holds "
                "images: use fixed, per_image or per_image_lit"
            )

    def cache_settings(self) -> CacheSettings:
        """Return the settings of copies whose shorter side is a little above the training size."""
        return CacheSettings(
            side=self._cache_side(),
            channels=self.spec.in_channels,
            classes=self.num_classes,
            values=self.spec.mask_values,
            max_pixels=self.config.data.max_pixels,
            volume=None,
        )

    def list_samples(self, split: Split) -> Sequence[Sample]:
        """Return the images."""
        return [self.cached[case_id] for case_id in split.train]

    def load_validation(self, split: Split) -> LoadBatches | None:
        """Load cached images."""
        if not split.validation:
            return None
        images = [self.cached[case_id] for case_id in split.validation]
        settings = self.config.train
        transform = evaluation_transform(
            settings.image_size, self.config.data.intensity, self.spec.in_channels
        )
        return lambda: evaluation_loader(
            images,
            transform,
            batch_size=settings.batch_size,
            workers=0,
            on_message=self.on_message,
        )

    def build_task(self, *, device: str) -> SegmentationTask:
        """Build the task of images; MONAI's `SimpleInferer` validates whole images."""
        del device  # batches are on the device already
        return SegmentationTask(
            build_loss(self.config.train.loss, num_classes=self.num_classes),
            num_classes=self.num_classes,
            inferer=build_inferer(PredictConfig(mode="resize"), self.config.train.image_size),
        )


class VolumePipeline(TrainingPipeline):
    """Trains on slices of volumes, and validates on whole volumes on their original grid."""

    @property
    def in_channels(self) -> int:
        """Channels of a slice and of its neighbors."""
        return self.spec.in_channels * self.config.data.slices.num_slices

    def check_settings(self) -> None:
        """Reject settings for images."""
        data = self.config.data
        if not data.intensity.is_of_volumes:
            raise UsageError(
                f"data.intensity.kind '{data.intensity.kind}' is for images; {self.spec.title} "
                "holds volumes: use per_volume, percentiles or window "
                "(--set data.intensity.kind=percentiles)"
            )
        if data.slices.spacing_mm is not None and not self._crops_windows:
            raise UsageError(
                "data.slices.spacing_mm needs --set predict.mode=window, because a slice that is "
                "resized to the image size has no fixed pixel size"
            )

    def cache_settings(self) -> CacheSettings:
        """Return the settings of cached slices, which keep their size if windows are cropped."""
        slices, data = self.config.data.slices, self.config.data
        return CacheSettings(
            side=_NO_RESIZING if self._crops_windows else self._cache_side(),
            channels=self.spec.in_channels,
            classes=self.num_classes,
            values=self.spec.mask_values,
            max_pixels=data.max_pixels,
            volume=VolumeSettings(
                axis=slices.axis, spacing_mm=slices.spacing_mm, intensity=data.intensity
            ),
        )

    def list_samples(self, split: Split) -> Sequence[Sample]:
        """Return the slices.

        Raises:
            DataError: If no training volume has any foreground.
        """
        volumes = [self.cached[case_id] for case_id in split.train]
        if volumes and not any(any(volume.has_foreground) for volume in volumes):
            raise DataError(
                f"none of the {len(volumes)} training volumes of {self.spec.name} has any "
                "foreground: all masks are empty; check the masks or the split"
            )
        slices = self.config.data.slices
        return list_slices(volumes, neighbors=slices.neighbors, empty_share=slices.empty_share)

    def load_validation(self, split: Split) -> LoadBatches | None:
        """Load whole volumes from their files."""
        if not split.validation:
            return None
        volumes = split.select(self.opened.cases, "validation")
        return lambda: load_volumes(
            volumes,
            channels=self.spec.in_channels,
            classes=self.num_classes,
            values=self.spec.mask_values,
            max_pixels=self.config.data.max_pixels,
        )

    def build_task(self, *, device: str) -> SegmentationTask:
        """Build the task of volumes, validated by MONAI's inferers without augmentation."""
        config = self.config
        predict = VolumeInferer(
            inferer=build_inferer(config.predict, config.train.image_size),
            mode=config.predict.mode,
            batch_size=config.predict.window_batch,
            intensity=config.data.intensity,
            image_size=config.train.image_size,
            channels=self.in_channels,
            slices=config.data.slices,
            device=device,
        )
        loss = build_loss(config.train.loss, num_classes=self.num_classes)
        return VolumeTask(loss, num_classes=self.num_classes, predict=predict)

    @property
    def _crops_windows(self) -> bool:
        return self.config.predict.mode == "window"


def build_pipeline(opened: OpenedDataset, config: RunConfig) -> TrainingPipeline:
    """Return the pipeline for a dataset of images or of volumes.

    Raises:
        UsageError: If the settings do not fit the dataset.
    """
    kind = VolumePipeline if opened.spec.spatial_dims == 3 else ImagePipeline
    pipeline = kind(opened, config)
    pipeline.check_settings()
    return pipeline

"""Apply networks to whole files and return labels on the grid of the file.

The networks are used as given: folding, compilation and memory layout are up to the caller. A 2-D
image is one slice. A volume is processed slice by slice along one of its stored axes (Z unless the
model was trained otherwise), with slices from `segnetr.data.volumes.slice_stack` as in training.
Rows become labels as soon as they are complete. Only the labels of a volume are kept unless
probabilities are requested, and the labels are kept on the disk if the batch plan says so. Code
that needs each probability only once passes a callback.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.data.volumes.slice_stack import Slices
from segnetr.engine.inference.accumulator import (
    Combination,
    PredictedRows,
    PredictionAccumulator,
    ProbabilityCallback,
    Uncertainty,
)
from segnetr.engine.inference.label_store import allocate_labels
from segnetr.engine.inference.postprocessing import background_weight, postprocess
from segnetr.engine.inference.slice_inferer import BatchPlan, SliceInferer
from segnetr.engine.inference.sliding_windows import Band, gather_planes
from segnetr.errors import ModelFileError

Advance = Callable[[int, int], None]
"""Called with the number of finished slices and the total number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Estimated quality of one mask; see `segnetr.engine.quality.predictor.QualityPredictor`.

    Attributes:
        dice: Predicted Dice, mean over the foreground classes, 0 to 1.
        low: Lower end of the prediction interval.
        high: Upper end.
        level: Coverage of the interval for cases like the validation cases.
        is_ood: Whether the image is out of distribution. If so, `dice` is not reliable.
        ood_score: Largest distance from the training set divided by its limit. Above 1: out of
            distribution.
        reasons: Why the image is out of distribution, one entry per reason.
    """

    dice: float
    low: float
    high: float
    level: float
    is_ood: bool
    ood_score: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OODFlag:
    """Whether an image is out of distribution, for a mask without a predicted Dice.

    Attributes:
        is_ood: As in `Quality`.
        ood_score: As in `Quality`.
        reasons: As in `Quality`.
    """

    is_ood: bool
    ood_score: float
    reasons: tuple[str, ...] = ()


def flag_kind(kind: str, *, spatial_dims: int) -> OODFlag | None:
    """Return a flag for a volume given to a model of images, or the reverse; otherwise None.

    Args:
        kind: "image" or "volume".
        spatial_dims: 2 for a model that was trained on images, 3 for slices of volumes.
    """
    if (kind == "volume") == (spatial_dims == 3):
        return None
    names = ("an image", "images", "a volume", "volumes")
    is_volume = kind == "volume"
    reason = f"{names[2 * is_volume]}, trained on {names[3 - 2 * is_volume]}"
    # The score is that of a calibrated detector in this case.
    return OODFlag(is_ood=True, ood_score=2.0, reasons=(reason,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Prediction for one file, on the grid of the file.

    Attributes:
        labels: Class indices, (H, W) of an image or (X, Y, Z) of a volume, postprocessed as
            configured in the model.
        num_classes: Number of classes K, background included. Labels are below it.
        probabilities: (K, H, W) or (K, X, Y, Z), summing to 1 over K; the shares of the votes for
            networks that vote. None if not requested.
        uncertainty: Uncertainty maps. None if not requested.
        quality: Predicted quality. None if the model cannot estimate it.
        ood_flag: The flag alone, if the model can detect images that are out of distribution, but
            cannot estimate the quality with these settings.
    """

    labels: NDArray[np.uint8]
    num_classes: int
    probabilities: NDArray[np.float32] | None = None
    uncertainty: Uncertainty | None = None
    quality: Quality | None = None
    ood_flag: OODFlag | None = None


class FeatureHook(Protocol):
    """Collects features of one file during the forward pass of one network.

    Attributes:
        needs_variance: Whether `update` needs the variance over test-time augmentations. Read after
            `wrap`.
    """

    needs_variance: bool

    def wrap(self, network: SliceInferer, slices: Slices) -> Slices:
        """Return slices that are observed when the network reads them."""
        ...

    def attach(self) -> AbstractContextManager[None]:
        """Return a context in which the layers of the network are observed."""
        ...

    def update(self, band: Band) -> None:
        """Receive the probabilities of some rows."""
        ...


class Predictor:
    """Applies one network to files. `ensemble` combines several predictors.

    Args:
        model: Maps images (N, C, H, W) to logits (N, K, H, W). Moved to `device` and put into
            evaluation mode.
        config: Mode, overlap, batch size, test-time augmentation and postprocessing.
        intensity: Normalization, as in training.
        image_size: (height, width) in pixels of the training images and of the windows.
        num_classes: Number of classes K, background included, at most 256.
        channels: Input channels C of the network. Gray images are repeated to fill them.
        slices: How volumes are sliced, as in training. None: along the last axis, as stored.
        device: Device of the network. Arrays of the size of the file stay in main memory.

    Raises:
        UsageError: If the augmentation rotates images that are not square.

    Attributes:
        networks: The networks, one unless this is an ensemble.
        postprocessing: Postprocessing steps in their order.
        collects_features: Whether features are collected during the forward pass, which takes more
            memory.
    """

    collects_features = False

    def __init__(
        self,
        model: nn.Module,
        *,
        config: PredictConfig,
        intensity: IntensityConfig,
        image_size: tuple[int, int],
        num_classes: int,
        channels: int,
        slices: SliceConfig | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        network = SliceInferer(
            model,
            config=config,
            intensity=intensity,
            image_size=image_size,
            num_classes=num_classes,
            channels=channels,
            slices=slices or SliceConfig(),
            device=torch.device(device),
        )
        self.networks: tuple[SliceInferer, ...] = (network,)
        self.postprocessing = config.postprocessing
        self._background = float(background_weight(config.threshold))
        self._combination: Combination = "mean"
        self._batch_plan: BatchPlan | None = None

    @classmethod
    def ensemble(
        cls, predictors: Sequence["Predictor"], *, combination: Combination = "mean"
    ) -> "Predictor":
        """Combine several predictors. Threshold and postprocessing are those of the first.

        Args:
            predictors: Predictors for the same classes. Their image sizes, channels and pixel sizes
                may differ.
            combination: Mean of the probabilities, or a vote for each pixel.

        Raises:
            ModelFileError: If they slice volumes along different axes or have different numbers of
                classes.
        """
        first = predictors[0]
        networks = tuple(network for each in predictors for network in each.networks)
        for network in networks:
            for name, own, other in (
                ("classes", network.num_classes, first.num_classes),
                ("axis of slices", network.slices.axis, first.networks[0].slices.axis),
            ):
                if own != other:
                    raise ModelFileError(
                        f"ensemble members differ: {name} {other} and {own}; pass models of one "
                        "kind as --model"
                    )
        combined = Predictor.__new__(Predictor)
        combined._copy_settings(first)
        combined.networks, combined._combination = networks, combination
        return combined

    def _copy_settings(self, other: "Predictor") -> None:
        self.networks, self.postprocessing = other.networks, other.postprocessing
        self._background, self._combination = other._background, other._combination
        self._batch_plan = other._batch_plan

    @property
    def num_classes(self) -> int:
        """Number of classes K, background included."""
        return self.networks[0].num_classes

    @property
    def num_views(self) -> int:
        """Number of forward passes for each slice: augmentations, summed over the networks."""
        return sum(len(network.tta_transforms) for network in self.networks)

    def set_batch_plan(self, plan: BatchPlan) -> None:
        """Set the batch sizes. By default each network uses those of its configuration."""
        self._batch_plan = plan

    def predict(
        self,
        image: ImageFile | VolumeFile,
        *,
        keep_probabilities: bool = False,
        keep_uncertainty: bool = False,
        callback: ProbabilityCallback | None = None,
        advance: Advance | None = None,
        hooks: Sequence[FeatureHook] = (),
        temperatures: Sequence[float] = (),
    ) -> Prediction:
        """Segment an image or a volume.

        The result does not depend on the batch sizes, up to rounding.

        Args:
            image: A file as read, or a volume that is read slice by slice.
            keep_probabilities: Return the probabilities as well, before postprocessing: K float32
                values for each pixel.
            keep_uncertainty: Return uncertainty maps as well: one or two float32 values each.
            callback: Receives all probabilities, as `keep_probabilities` would return them, tile by
                tile.
            advance: Called after each slice. An exception that it raises ends the prediction.
            hooks: One per network, or none.
            temperatures: One per network, applied before the entropy. Empty: 1 for all.

        Raises:
            ReadError: If the image has other channels than a network expects, a network returns
                NaN, the file of a volume changed after it was opened, or the disk is too full for
                its labels.
            UsageError: If `intensity` does not fit the channels.
        """
        axis = self.networks[0].slices.axis
        height, width, depth = _find_size(image, axis)
        accumulator = PredictionAccumulator(
            self._allocate(image, (height, width, depth)),
            axis=None if image.kind == "image" else axis,
            num_classes=self.num_classes,
            combination=self._combination,
            background=self._background,
            keep_probabilities=keep_probabilities,
            temperatures=(
                (temperatures or [1.0] * len(self.networks)) if keep_uncertainty else None
            ),
            has_variance=self.num_views > 1,
            callback=callback,
        )
        with torch.inference_mode(), ExitStack() as attached:
            for tile in self._predict_tiles(
                image, (height, width), hooks, attached, with_variance=keep_uncertainty
            ):
                accumulator.add(tile)
                if advance is not None and tile.top + tile.height == height:
                    advance(tile.index + 1, depth)
        result = accumulator.result()
        return Prediction(
            labels=postprocess(result.labels, self.postprocessing),
            num_classes=self.num_classes,
            probabilities=result.probabilities,
            uncertainty=result.uncertainty,
        )

    def _allocate(
        self, image: ImageFile | VolumeFile, size: tuple[int, int, int]
    ) -> NDArray[np.uint8]:
        if image.kind == "image":
            return np.zeros(size, dtype=np.uint8)
        spill = self._batch_plan.spill if self._batch_plan else None
        return allocate_labels(size, image.path, folder=spill)

    def _predict_tiles(
        self,
        image: ImageFile | VolumeFile,
        grid: tuple[int, int],
        hooks: Sequence[FeatureHook],
        attached: ExitStack,
        *,
        with_variance: bool,
    ) -> Iterator[PredictedRows]:
        """Yield tiles: bands of rows if there is one network that predicts on the file's grid.

        Bands on another grid cannot be resized one by one without seams.
        """
        streams, planes = [], []
        for number, network in enumerate(self.networks):
            plan = self._batch_plan or BatchPlan(windows=network.window_batch)
            slices = network.open(image, plan)
            hook = hooks[number] if hooks else None
            if hook is not None:
                slices = hook.wrap(network, slices)
                attached.enter_context(hook.attach())
            has_variance = len(network.tta_transforms) > 1 and (
                with_variance or (hook is not None and hook.needs_variance)
            )
            bands, plane = network.predict_slices(image, slices, plan, with_variance=has_variance)
            streams.append(bands if hook is None else _update_from(bands, hook))
            planes.append(plane)
        if len(streams) == 1 and planes[0] == grid:
            for band in streams[0]:
                rows = band.probabilities.shape[1]
                yield PredictedRows(band.index, band.top, rows, (band.probabilities,))
            return
        whole = [
            gather_planes(bands, plane[0]) for bands, plane in zip(streams, planes, strict=True)
        ]
        for pairs in zip(*whole, strict=True):
            yield PredictedRows(pairs[0][0], 0, grid[0], tuple(each for _, each in pairs))


def _update_from(bands: Iterator[Band], hook: FeatureHook) -> Iterator[Band]:
    for band in bands:
        hook.update(band)
        yield band


def _find_size(image: ImageFile | VolumeFile, axis: int) -> tuple[int, int, int]:
    """Return height, width and number of slices of a file."""
    if image.kind == "image":
        height, width = image.grid
        return height, width, 1
    height, width = (side for at, side in enumerate(image.grid) if at != axis)
    return height, width, image.grid[axis]

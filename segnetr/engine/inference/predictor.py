"""Networks applied to whole files: labels, and probabilities where wanted, on the file's grid.

The networks are taken as they come: whoever calls decides whether they were folded, compiled or put
into another memory layout before. Images are one slice; volumes are worked through slice by slice
along one of their axes as stored, the last one (Z) unless the model was trained otherwise, and come
from `slice_stack` as in training. Each band of rows becomes labels as soon as it is
complete. Only labels are kept of a volume unless probabilities are asked for, and those on the disk
where the pace says so; who needs probabilities only once watches them go by.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.data.volumes.slice_stack import Slices
from segnetr.engine.inference.accumulator import Part, PredictionAccumulator
from segnetr.engine.inference.label_store import allocate_labels
from segnetr.engine.inference.labeling import Combination
from segnetr.engine.inference.postprocessing import background_weight, postprocess
from segnetr.engine.inference.region import ProbabilityCallback
from segnetr.engine.inference.slice_inferer import BatchPlan, SliceInferer
from segnetr.engine.inference.sliding_windows import gather_planes
from segnetr.engine.inference.uncertainty import Uncertainty
from segnetr.engine.quality.estimator import Quality, QualityModel, combine
from segnetr.engine.quality.feature_collector import ImageFeatures, Observer
from segnetr.engine.quality.probability_features import MapFeatures
from segnetr.errors import ModelFileError

Advance = Callable[[int, int], None]
"""Called with the slices that are done and the slices there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureHook:
    """What is looked at while a network answers, to judge its mask.

    Attributes:
        level: Dotted name of the module whose maps describe what the network is shown.
        temperature: Of the probabilities.
        views: Whether the views of each slice are compared, where there are several.
    """

    level: str
    temperature: float
    views: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What networks say about one file, on the grid of that file.

    Attributes:
        labels: Class indices, (H, W) for a image and (X, Y, Z) for a volume, repaired as the
            model's configuration says.
        num_classes: Number of classes K, background included; labels are below it.
        probabilities: (K, H, W) or (K, X, Y, Z), summing to 1 over K; None where nobody asked. Of
            networks that vote: shares of the voices.
        uncertainty: Maps of where the labels are not sure; None where nobody asked.
        observations: What was noticed of the file, network by network; empty without probes.
        quality: What is believed about the labels; None where the model says nothing of it.
    """

    labels: NDArray[np.uint8]
    num_classes: int
    probabilities: NDArray[np.float32] | None = None
    uncertainty: Uncertainty | None = None
    observations: tuple[ImageFeatures, ...] = ()
    quality: Quality | None = None


class Predictor:
    """Applies one network to files; `join` makes one of several.

    Args:
        model: Maps images (N, C, H, W) to logits (N, K, H, W); moved to `device` and put into
            evaluation mode.
        config: Whole images or windows, their overlap, batch, mirroring and repairs.
        intensity: How values are normalized; as in training.
        image_size: (height, width) in pixels of the training images, and of the windows.
        num_classes: Number of classes K, background included, at most 256.
        channels: Channels C the network takes; gray images are repeated to fill them.
        slices: How volumes are cut, as in training; None: along their last axis, as stored.
        device: Where the network runs. Everything of the size of the file stays in main memory.

    Raises:
        UsageError: If the augmentation turns images that are not square.
    """

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
        self.post = config.postprocessing
        self._background = float(background_weight(config.threshold))
        self._combination: Combination = "mean"
        self._batch_plan: BatchPlan | None = None
        self._probes: tuple[FeatureHook, ...] = ()
        self._judges: tuple[QualityModel, ...] = ()

    @classmethod
    def join(
        cls, predictors: Sequence["Predictor"], *, combination: Combination = "mean"
    ) -> "Predictor":
        """Let several answer together; threshold and repairs are those of the first.

        Args:
            predictors: Networks of the same classes; their image sizes, channels and pixel sizes
                may differ.
            combination: Mean of their probabilities, or a vote for each pixel.

        Raises:
            ModelFileError: If they do not cut volumes along the same axis, or do not have as many
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
                        f"models that answer together differ: {name} {other} and {own}; give "
                        "models of one kind as --model"
                    )
        joined = cls.__new__(cls)
        joined.networks, joined.post = networks, first.post
        joined._background = first._background
        joined._combination, joined._batch_plan = combination, first._batch_plan
        joined._probes, joined._judges = (), ()
        return joined

    @property
    def num_classes(self) -> int:
        """Number of classes K, background included."""
        return self.networks[0].num_classes

    @property
    def judges(self) -> tuple[QualityModel, ...]:
        """What says how good a mask is, for each network; empty where nothing does."""
        return self._judges

    @property
    def is_observed(self) -> bool:
        """Whether something is looked at beside the labels."""
        return bool(self._probes)

    @property
    def views(self) -> int:
        """Ways of looking at each slice, over all networks."""
        return sum(len(network.tta_transforms) for network in self.networks)

    def judge_by(self, judges: Sequence[QualityModel]) -> None:
        """Say from now on of each mask how good it probably is.

        Args:
            judges: One for each network, in their order.
        """
        self._judges = tuple(judges)
        self._probes = tuple(
            FeatureHook(level=judge.level, temperature=judge.temperature, views=judge.needs_views)
            for judge in judges
        )

    def observe(self, probe: FeatureHook) -> None:
        """Note from now on what a judge of a single network is fitted on."""
        self._judges, self._probes = (), (probe,)

    def set_batch_plan(self, pace: BatchPlan) -> None:
        """Say how much is worked on at once; before, each network goes by its configuration."""
        self._batch_plan = pace

    def predict(
        self,
        image: ImageFile | VolumeFile,
        *,
        keep_probabilities: bool = False,
        keep_uncertainty: bool = False,
        watch: ProbabilityCallback | None = None,
        advance: Advance | None = None,
    ) -> Prediction:
        """Segment a image or a volume.

        The answer does not depend on what is in one forward pass together, but for rounding.

        Args:
            image: A file as read, or a volume that is read slice by slice.
            keep_probabilities: Give them as well, not repaired; K float32 values for each pixel.
            keep_uncertainty: Give maps of uncertainty as well; one or two float32 values each.
            watch: Shown all probabilities, as `keep_probabilities` would give them, part by part.
            advance: Told of each finished slice; what it raises ends the prediction.

        Raises:
            ReadError: If the image has other channels than a network takes, a network answers it
                with NaN, the file of a volume changed since it was opened, or the disk has no room
                for its labels.
            UsageError: If `intensity` does not fit the channels.
        """
        axis = self.networks[0].slices.axis
        height, width, depth = _measure(image, axis)
        spill = self._batch_plan.spill if self._batch_plan else None
        canvas = PredictionAccumulator(
            allocate_labels((height, width, depth), image.path, folder=spill),
            axis=None if image.kind == "image" else axis,
            num_classes=self.num_classes,
            combination=self._combination,
            background=self._background,
            keep_probabilities=keep_probabilities,
            temperatures=self._find_temperatures() if keep_uncertainty else None,
            has_variance=self.views > 1,
            watch=watch,
        )
        watched = [self._watch(image, number) for number in range(len(self.networks))]
        with torch.inference_mode(), ExitStack() as watching:
            for each in watched:
                watching.enter_context(each.observer.watch() if each.observer else nullcontext())
            for part in self._answer(image, (height, width), watched, spread=keep_uncertainty):
                canvas.paint(part)
                if advance is not None and part.top + part.height == height:
                    advance(part.index + 1, depth)
        done = canvas.finish()
        observations = tuple(
            each.observer.finish(image.kind, image.spacing) for each in watched if each.observer
        )
        pairs = zip(self._judges, observations, strict=bool(self._judges))
        judged = [judge.judge(seen) for judge, seen in pairs]
        return Prediction(
            labels=postprocess(done.labels, self.post),
            num_classes=self.num_classes,
            probabilities=done.probabilities,
            uncertainty=done.uncertainty,
            observations=observations,
            quality=combine(judged) if judged else None,
        )

    def _find_temperatures(self) -> list[float]:
        if not self._probes:
            return [1.0] * len(self.networks)
        return [probe.temperature for probe in self._probes]

    def _watch(self, image: ImageFile | VolumeFile, number: int) -> "_Watched":
        """Open a file for one network, and look at what it is shown where there is a probe."""
        network = self.networks[number]
        pace = self._batch_plan or BatchPlan(windows=network.window_batch)
        stack = network.open(image, pace)
        if not self._probes:
            return _Watched(pace=pace, stack=stack)
        probe = self._probes[number]
        views = len(network.tta_transforms) if probe.views else 1
        features = MapFeatures(
            network.image_size if network.mode == "resize" else stack.plane,
            num_classes=self.num_classes,
            temperature=probe.temperature,
            background=float(background_weight(network.config.threshold)),
            views=views,
        )
        observer = Observer(
            network.model,
            probe.level,
            channels=network.channels // network.slices.num_slices,
            neighbors=network.slices.neighbors,
            features=features,
        )
        stack = observer.behold(stack)
        return _Watched(pace=pace, stack=stack, observer=observer, spread=views > 1)

    def _answer(
        self,
        image: ImageFile | VolumeFile,
        grid: tuple[int, int],
        watched: Sequence["_Watched"],
        *,
        spread: bool,
    ) -> Iterator[Part]:
        """Give what all networks say, band by band where there is one and it saw the file's grid.

        Bands of other planes cannot be brought to the grid one by one without seams.
        """
        answers, planes = [], []
        for network, each in zip(self.networks, watched, strict=True):
            wants = each.spread or (spread and len(network.tta_transforms) > 1)
            bands, plane = network.answer(image, each.stack, each.pace, spread=wants)
            answers.append(bands if each.observer is None else each.observer.follow(bands))
            planes.append(plane)
        if len(answers) == 1 and planes[0] == grid:
            for band in answers[0]:
                yield Part(band.index, band.top, band.answer.shape[1], (band.answer,))
            return
        whole = [
            gather_planes(bands, plane[0]) for bands, plane in zip(answers, planes, strict=True)
        ]
        for together in zip(*whole, strict=True):
            yield Part(together[0][0], 0, grid[0], tuple(answer for _, answer in together))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Watched:
    """A file opened for one network, and what looks on while it answers."""

    pace: BatchPlan
    stack: Slices
    observer: Observer | None = None
    spread: bool = False


def _measure(image: ImageFile | VolumeFile, axis: int) -> tuple[int, int, int]:
    """Give height, width and number of the slices of a file."""
    if image.kind == "image":
        height, width = image.grid
        return height, width, 1
    height, width = (side for at, side in enumerate(image.grid) if at != axis)
    return height, width, image.grid[axis]

"""Networks applied to whole files: labels, and probabilities where wanted, on the file's grid.

The networks are taken as they come: whoever calls decides whether they were folded, compiled or put
into another memory layout before. Pictures are one slice; volumes are worked through slice by slice
along one of their axes as stored, the last one (Z) unless the model was trained otherwise, and come
from `segnetr.data.slice_stack` as in training. Each band of rows becomes labels as soon as it is
complete. Only labels are kept of a volume unless probabilities are asked for, so the memory needed
beside it does not grow with its depth; who needs probabilities only once watches them go by.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segnetr.config.schema import IntensityConfig, PredictConfig
from segnetr.config.volumes import SliceConfig
from segnetr.data.files.volume_file import VolumeFile
from segnetr.data.readers import ImageFile
from segnetr.data.slice_stack import restore_axis
from segnetr.engine.labelling import Combination, label_pixels
from segnetr.engine.place import Place, Watch, store_parts
from segnetr.engine.postprocessing import background_weight, postprocess
from segnetr.engine.slice_network import Pace, SliceNetwork
from segnetr.engine.sliding_windows import gather_planes
from segnetr.errors import ModelFileError

Advance = Callable[[int, int], None]
"""Called with the slices that are done and the slices there are."""


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Rows of a slice, and what each network says about them: (K, h, w)."""

    index: int
    top: int
    height: int
    answers: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What networks say about one file, on the grid of that file.

    Attributes:
        labels: Class indices, (H, W) for a picture and (X, Y, Z) for a volume, repaired as the
            model's configuration says.
        num_classes: Number of classes K, background included; labels are below it.
        probabilities: (K, H, W) or (K, X, Y, Z), summing to 1 over K; None where nobody asked. Of
            networks that vote: shares of the voices.
    """

    labels: NDArray[np.uint8]
    num_classes: int
    probabilities: NDArray[np.float32] | None = None


class Predictor:
    """Applies one network to files; `join` makes one of several.

    Args:
        model: Maps images (N, C, H, W) to logits (N, K, H, W); moved to `device` and put into
            evaluation mode.
        config: Whole pictures or windows, their overlap, batch, mirroring and repairs.
        intensity: How values are normalised; as in training.
        image_size: (height, width) in pixels of the training pictures, and of the windows.
        num_classes: Number of classes K, background included, at most 256.
        channels: Channels C the network takes; grey images are repeated to fill them.
        slices: How volumes are cut, as in training; None: along their last axis, as stored.
        device: Where the network runs. Everything of the size of the file stays in main memory.

    Raises:
        UsageError: If the augmentation turns pictures that are not square.
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
        network = SliceNetwork(
            model,
            config=config,
            intensity=intensity,
            image_size=image_size,
            num_classes=num_classes,
            channels=channels,
            slices=slices or SliceConfig(),
            device=torch.device(device),
        )
        self.networks: tuple[SliceNetwork, ...] = (network,)
        self.post = config.post
        self._background = float(background_weight(config.threshold))
        self._combination: Combination = "mean"
        self._pace: Pace | None = None

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
        joined._combination, joined._pace = combination, first._pace
        return joined

    @property
    def num_classes(self) -> int:
        """Number of classes K, background included."""
        return self.networks[0].num_classes

    def set_pace(self, pace: Pace) -> None:
        """Say how much is worked on at once; before, each network goes by its configuration."""
        self._pace = pace

    def predict(
        self,
        image: ImageFile | VolumeFile,
        *,
        keep_probabilities: bool = False,
        watch: Watch | None = None,
        advance: Advance | None = None,
    ) -> Prediction:
        """Segment a picture or a volume.

        The answer does not depend on what is in one forward pass together, but for rounding.

        Args:
            image: A file as read, or a volume that is read slice by slice.
            keep_probabilities: Give them as well, not repaired; K float32 values for each pixel.
            watch: Shown all probabilities, as `keep_probabilities` would give them, part by part.
            advance: Told of each finished slice; what it raises ends the prediction.

        Raises:
            ReadError: If the image has other channels than a network takes, a network answers it
                with NaN, or the file of a volume changed since it was opened.
            UsageError: If `intensity` does not fit the channels.
        """
        axis = self.networks[0].slices.axis
        height, width, depth = _measure(image, axis)
        labels = np.zeros((height, width, depth), dtype=np.uint8, order="F")
        kept = None
        if keep_probabilities:
            kept = np.empty((self.num_classes, height, width, depth), dtype=np.float32)
        with torch.inference_mode():
            for part in self._answer(image, (height, width)):
                rows = slice(part.top, part.top + part.height)
                place = Place(
                    axis=None if image.kind == "picture" else axis,
                    plane=part.index,
                    rows=rows,
                    start=(part.index * height + part.top) * width,
                )
                labels[rows, :, part.index] = label_pixels(
                    part.answers,
                    (part.height, width),
                    combination=self._combination,
                    background=self._background,
                    store=store_parts(
                        None if kept is None else kept[:, rows, :, part.index], watch, place
                    ),
                ).cpu()
                if advance is not None and rows.stop == height:
                    advance(part.index + 1, depth)
        if image.kind == "picture":
            labels, kept = labels[..., 0], None if kept is None else kept[..., 0]
        else:
            labels = restore_axis(labels, axis)
            kept = None if kept is None else restore_axis(kept, axis)
        labels = postprocess(labels, self.post)
        return Prediction(labels=labels, num_classes=self.num_classes, probabilities=kept)

    def _answer(self, image: ImageFile | VolumeFile, grid: tuple[int, int]) -> Iterator[_Part]:
        """Give what all networks say, band by band where there is one and it saw the file's grid.

        Bands of other planes cannot be brought to the grid one by one without seams.
        """
        answers, planes = [], []
        for network in self.networks:
            pace = self._pace or Pace(windows=network.window_batch)
            bands, plane = network.answer(image, network.open(image, pace), pace)
            answers.append(bands)
            planes.append(plane)
        if len(answers) == 1 and planes[0] == grid:
            for band in answers[0]:
                yield _Part(band.index, band.top, band.answer.shape[1], (band.answer,))
            return
        whole = [
            gather_planes(bands, plane[0]) for bands, plane in zip(answers, planes, strict=True)
        ]
        for together in zip(*whole, strict=True):
            yield _Part(together[0][0], 0, grid[0], tuple(answer for _, answer in together))


def _measure(image: ImageFile | VolumeFile, axis: int) -> tuple[int, int, int]:
    """Give height, width and number of the slices of a file."""
    if image.kind == "picture":
        height, width = image.grid
        return height, width, 1
    height, width = (side for at, side in enumerate(image.grid) if at != axis)
    return height, width, image.grid[axis]

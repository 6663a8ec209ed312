"""A network applied to a whole file: resized or by sliding windows, on the grid of the file.

The network is taken as it comes: whoever calls decides whether it was folded, compiled or put into
another memory layout before. Pictures are one slice; volumes are worked through slice by slice
along one of their axes as stored, the last one (Z) unless the model was trained otherwise, a few
slices in one forward pass, and come from `segnetr.data.slice_stack` as in training. Only labels are
kept of a volume unless probabilities are asked for, so the memory needed beside the volume does not
grow with its depth.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn

from segnetr.config.schema import IntensityConfig, PredictConfig
from segnetr.config.volumes import SliceConfig
from segnetr.data.intensity import normalise
from segnetr.data.readers import ImageFile
from segnetr.data.resize import resize_image
from segnetr.data.slice_stack import SliceStack, find_margins, open_stack, pad_plane, restore_axis
from segnetr.engine.postprocessing import background_weight, postprocess
from segnetr.errors import ReadError

# Axes of (N, C, H, W): left-right, up-down, and both.
_MIRRORINGS: tuple[tuple[int, ...], ...] = ((3,), (2,), (2, 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a network says about one file, on the grid of that file.

    Attributes:
        labels: Class indices, (H, W) for a picture and (X, Y, Z) for a volume, repaired as the
            model's configuration says.
        num_classes: Number of classes K, background included; labels are below it.
        probabilities: (K, H, W) or (K, X, Y, Z), summing to 1 over K; None where nobody asked.
    """

    labels: NDArray[np.uint8]
    num_classes: int
    probabilities: NDArray[np.float32] | None = None


class Predictor:
    """Applies one network to files.

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
        self._device = torch.device(device)
        self._model = model.to(self._device).eval()
        self._config = config
        self._intensity = intensity
        self._image_size = image_size
        self._num_classes = num_classes
        self._channels = channels
        self._slices = slices or SliceConfig()

    def predict(self, image: ImageFile, *, keep_probabilities: bool = False) -> Prediction:
        """Segment a picture or a volume.

        The answer does not depend on what is in one forward pass together, but for rounding.

        Args:
            image: A file as read.
            keep_probabilities: Give them as well, not repaired; K float32 values for each pixel.

        Raises:
            ReadError: If the image has other channels than the network takes, or the network
                answers it with NaN.
            UsageError: If `intensity` does not fit the channels.
        """
        stack = open_stack(image, self._slices, self._intensity)
        (height, width), depth = stack.grid, stack.depth
        labels = np.zeros((height, width, depth), dtype=np.uint8, order="F")
        kept = None
        if keep_probabilities:
            kept = np.empty((self._num_classes, height, width, depth), dtype=np.float32)
        background = background_weight(self._config.threshold)
        with torch.inference_mode():
            for index, answer in self._answer_slices(image, stack):
                slice_kept = None if kept is None else kept[..., index]
                labels[..., index] = _label(
                    answer, (height, width), keep=slice_kept, background=background
                )
        if image.kind == "picture":
            labels, kept = labels[..., 0], None if kept is None else kept[..., 0]
        else:
            axis = self._slices.axis
            labels = restore_axis(labels, axis)
            kept = None if kept is None else restore_axis(kept, axis)
        labels = postprocess(labels, self._config.post)
        return Prediction(labels=labels, num_classes=self._num_classes, probabilities=kept)

    def _answer_slices(
        self, image: ImageFile, stack: SliceStack
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Give the probabilities (K, h, w) of each slice, in order, on the grid `stack.plane`."""
        depth, together = stack.depth, self._config.window_batch
        pads = self._config.mode == "window" and image.kind == "volume"
        for start in range(0, depth, together):
            indices = range(start, min(start + together, depth))
            batch = torch.stack(
                [self._prepare(image, stack.view(index), pads=pads) for index in indices]
            )
            answers = self._answer(batch)
            if not bool(torch.isfinite(answers).all()):
                raise ReadError(
                    image.path, "the network answers this image with NaN; look at its grey values"
                )
            if pads:
                answers = _cut_margins(answers, stack.plane, self._image_size)
            yield from zip(indices, answers.numpy(), strict=True)

    def _prepare(self, image: ImageFile, picture: NDArray[Any], *, pads: bool) -> Tensor:
        """Bring (h, w, C) to what the network takes, in the order of the evaluation transform."""
        present = picture.shape[2]
        if present != self._channels and present != 1:
            raise ReadError(
                image.path, f"it has {present} channels where the model takes {self._channels}"
            )
        if self._config.mode == "resize":
            picture = resize_image(picture, self._image_size)
        elif pads:
            picture = pad_plane(picture, self._image_size, value=picture.min())
        if present != self._channels:
            picture = np.repeat(picture, self._channels, axis=2)
        values = normalise(picture, self._intensity).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(values))

    def _answer(self, batch: Tensor) -> Tensor:
        """Turn images (N, C, h, w) into probabilities (N, K, h, w) in main memory."""
        if self._config.mode == "resize":
            return self._estimate(batch.to(self._device)).cpu()
        answers: Tensor = sliding_window_inference(
            batch,
            roi_size=self._image_size,
            sw_batch_size=self._config.window_batch,
            predictor=self._estimate,
            overlap=self._config.overlap,
            mode="gaussian",
            sw_device=self._device,
            device="cpu",
        )
        return answers

    def _estimate(self, batch: Tensor) -> Tensor:
        """Turn images into probabilities, as the mean over mirrorings where that is wanted.

        Probabilities and not logits are averaged, over mirrorings as over windows, so that what
        `--save-prob` writes still sums to 1.
        """
        if self._config.tta == "none":
            return self._run(batch)
        views = [batch, *(batch.flip(axes) for axes in _MIRRORINGS)]
        straight, *mirrored = self._run(torch.cat(views)).chunk(len(views))
        for axes, answer in zip(_MIRRORINGS, mirrored, strict=True):
            straight = straight + answer.flip(axes)
        return straight / len(views)

    def _run(self, batch: Tensor) -> Tensor:
        logits: Tensor = self._model(batch)
        expected = (len(batch), self._num_classes, *batch.shape[2:])
        if logits.shape != expected:
            raise ValueError(f"the network gives {tuple(logits.shape)} instead of {expected}")
        return logits.float().softmax(dim=1)


def _cut_margins(answers: Tensor, plane: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Take away from (N, K, h, w) what padding a plane to a size had put around it."""
    (above, _), (left, _) = find_margins(plane, size)
    return answers[..., above : above + plane[0], left : left + plane[1]]


def _label(
    answer: NDArray[np.float32],
    grid: tuple[int, int],
    *,
    keep: NDArray[np.float32] | None,
    background: np.float32,
) -> NDArray[np.uint8]:
    """Choose the most probable class for each pixel; of equal ones the first.

    Class by class, so that a large picture never needs all its probabilities at once.

    Args:
        answer: Probabilities (K, h, w).
        grid: (H, W) of the file; probabilities are brought there by linear interpolation.
        keep: Where the probabilities (K, H, W) are to be put, or None.
        background: Factor on the probability of the background, for the choice alone.
    """
    labels = np.zeros(grid, dtype=np.uint8)
    highest: NDArray[np.float32] | None = None
    for index, class_answer in enumerate(answer):
        probability = _resize(class_answer, grid)
        if keep is not None:
            keep[index] = probability
        if highest is None:
            highest = probability * background
            continue
        labels[probability > highest] = index
        highest = np.maximum(highest, probability)
    return labels


def _resize(plane: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    if plane.shape == grid:
        return plane
    resized = F.interpolate(
        torch.from_numpy(plane)[None, None], size=grid, mode="bilinear", align_corners=False
    )
    return np.asarray(resized[0, 0].numpy(), dtype=np.float32)

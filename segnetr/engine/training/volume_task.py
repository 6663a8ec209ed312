"""Segmentation of volumes by slices: trained on slices, validated on whole volumes."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from segnetr.config.schema.intensity import IntensityConfig
from segnetr.config.schema.segmentation import PredictConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.case import Batch, Case
from segnetr.data.preprocessing.intensity import normalize
from segnetr.data.preprocessing.resize import resize_image
from segnetr.data.readers.image_file import ClassValues, ImageFile
from segnetr.data.readers.read_files import read_ground_truth, read_image
from segnetr.data.volumes.slice_stack import find_margins, open_stack, pad_plane, restore_axis
from segnetr.engine.training.tasks import Inferer, SegmentationTask, dice_by_image
from segnetr.errors import ReadError, UsageError

PredictVolume = Callable[[nn.Module, ImageFile], NDArray[np.uint8]]
"""Returns the class indices (X, Y, Z) that a network predicts for a volume."""


class VolumeTask(SegmentationTask):
    """Segmentation of volumes whose slices are the training samples.

    The validation Dice is computed for each volume on its original grid, as in `segnetr evaluate`,
    averaged over the foreground classes and then over the volumes.

    Args:
        loss: Loss of a batch of slices.
        num_classes: K, including the background.
        predict: Segments a whole volume with a network.
    """

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        num_classes: int,
        predict: PredictVolume,
    ) -> None:
        super().__init__(loss, num_classes=num_classes)
        self._predict = predict

    @torch.no_grad()
    def validate(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the mean "dice" over all volumes.

        Raises:
            UsageError: If there is no volume.
        """
        dice = []
        for batch in batches:
            prediction = torch.from_numpy(self._predict(model, batch["volume"]).copy())
            ground_truth = torch.from_numpy(batch["ground_truth"].copy())
            # A volume is treated as one long image: (1, 1, X, Y * Z).
            pair = (prediction.flatten(1)[None, None], ground_truth.flatten(1)[None, None])
            dice.append(float(dice_by_image(*pair, num_classes=self._num_classes)))
        if not dice:
            raise UsageError("no case for validation; raise data.validation_share or add cases")
        return {"dice": sum(dice) / len(dice)}


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeInferer:
    """Segments volumes slice by slice with an inferer of MONAI.

    Preprocessing is that of training and of `segnetr predict`; there is no test-time augmentation
    and no postprocessing.

    Attributes:
        inferer: Applies a function to a batch of slices: all at once, or by sliding windows.
        mode: "resize": slices are resized to `image_size`; "window": `inferer` slides windows.
        batch_size: Slices in one call of `inferer`.
        intensity: How values are normalized.
        image_size: (height, width) in pixels of the training images.
        channels: Channels that the network takes; a slice with one channel is repeated.
        slices: How volumes are cut into slices.
        device: Where the network runs.
    """

    inferer: Inferer
    mode: str
    batch_size: int
    intensity: IntensityConfig
    image_size: tuple[int, int]
    channels: int
    slices: SliceConfig
    device: str | torch.device = "cpu"

    @torch.no_grad()
    def __call__(self, model: nn.Module, volume: ImageFile) -> NDArray[np.uint8]:
        """Return class indices on the grid of the file, (X, Y, Z) uint8.

        Raises:
            ReadError: If the volume has a wrong number of channels, or the network returns NaN.
            UsageError: If `intensity` does not fit the channels.
        """
        stack = open_stack(volume, self.slices, self.intensity)
        labels = np.empty((*stack.grid, stack.depth), dtype=np.uint8)

        def predict(batch: Tensor) -> Tensor:
            logits: Tensor = model(batch)
            return logits.float().softmax(dim=1)

        for start in range(0, stack.depth, self.batch_size):
            indices = range(start, min(start + self.batch_size, stack.depth))
            batch = torch.stack([self._prepare(volume, stack.view(index)) for index in indices])
            probabilities = self.inferer(batch.to(self.device), predict)
            if not bool(torch.isfinite(probabilities.sum())):
                raise ReadError(
                    volume.path, "the network predicts NaN for this volume; check its intensities"
                )
            if self.mode == "window":
                probabilities = _crop_margins(probabilities, stack.plane, self.image_size)
            if probabilities.shape[2:] != stack.grid:
                probabilities = F.interpolate(
                    probabilities, size=stack.grid, mode="bilinear", align_corners=False
                )
            chosen = probabilities.argmax(dim=1).to(torch.uint8).cpu().numpy()
            labels[:, :, start : start + len(chosen)] = np.moveaxis(chosen, 0, -1)
        return restore_axis(labels, self.slices.axis)

    def _prepare(self, volume: ImageFile, pixels: NDArray[Any]) -> Tensor:
        """Turn a slice (h, w, C) into the input of the network, (C, h, w)."""
        present = pixels.shape[2]
        if present not in (self.channels, 1):
            raise ReadError(
                volume.path, f"it has {present} channels where the model takes {self.channels}"
            )
        if self.mode == "window":
            pixels = pad_plane(pixels, self.image_size, value=pixels.min())
        else:
            pixels = resize_image(pixels, self.image_size)
        if present != self.channels:
            pixels = np.repeat(pixels, self.channels, axis=2)
        values = normalize(pixels, self.intensity).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(values))


def build_inferer(config: PredictConfig, image_size: tuple[int, int]) -> Inferer:
    """Return MONAI's inferer for these settings: sliding windows, or whole slices at once.

    Args:
        config: Mode, overlap, weights and batch size of the windows.
        image_size: (height, width) of a window in pixels.
    """
    # MONAI takes seconds to import.
    from monai.inferers import SimpleInferer, SlidingWindowInferer

    inferer: Inferer = SimpleInferer()
    if config.mode == "window":
        inferer = SlidingWindowInferer(
            roi_size=image_size,
            sw_batch_size=config.window_batch,
            overlap=config.overlap,
            mode=config.weights,
        )
    return inferer


def load_volumes(
    cases: Sequence[Case],
    *,
    channels: int,
    classes: int,
    values: ClassValues | None = None,
    max_pixels: int,
) -> Iterator[Batch]:
    """Read whole volumes from their files, one per batch, for validation.

    They are not read from the cache, because the cached copies are not on the original grid.

    Args:
        cases: Cases with masks.
        channels: Values per voxel.
        classes: Number of classes K, including the background.
        values: As in `read_mask_file`.
        max_pixels: As in `read_image`.

    Raises:
        ReadError: If a file cannot be read any more.
    """
    for case in cases:
        if case.mask is None:
            raise ReadError(case.image, "it has no mask to validate with")
        yield Batch(
            image=torch.empty(0, 1, 1, 1),
            case_id=[case.case_id],
            volume=read_image(case.image, volume_channels=channels, max_pixels=max_pixels),
            ground_truth=read_ground_truth(
                case.mask_files, classes=classes, values=values, max_pixels=max_pixels
            ).array,
        )


def _crop_margins(
    probabilities: Tensor, plane: tuple[int, int], image_size: tuple[int, int]
) -> Tensor:
    """Remove the padding of slices that are smaller than a window."""
    (top, _), (left, _) = find_margins(plane, image_size)
    return probabilities[:, :, top : top + plane[0], left : left + plane[1]]

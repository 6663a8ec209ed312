"""Apply a network to the slices of a file, resized or by sliding windows.

Windows of one or several slices and their test-time augmentations share a forward pass.
Probabilities are returned in the order of the slices, on the plane that the network saw. Only the
current windows and the sums of one band of rows are kept.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.preprocessing.intensity import normalize
from segnetr.data.preprocessing.resize import resize_image
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.data.volumes.resample import resample_slice
from segnetr.data.volumes.slice_stack import Slices, find_margins, open_stack, pad_plane
from segnetr.data.volumes.streamed_stack import open_streamed_stack
from segnetr.engine.inference.sliding_windows import (
    Band,
    WindowAccumulator,
    WindowGrid,
    make_window_grid,
)
from segnetr.engine.inference.tta import TTA_TRANSFORMS, tta_mean, tta_variance
from segnetr.errors import ReadError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """Batch sizes for inference. They affect speed and memory, not results (up to rounding).

    Attributes:
        windows: Windows, or resized slices, in one forward pass.
        tta_batch: Augmentations of each of them in one forward pass, 1 to 8.
        block_bytes: Bytes held at once of a volume that is sliced across its stored planes.
        spill: Folder on whose disk the labels are kept. None: in memory.
    """

    windows: int
    tta_batch: int = 8
    block_bytes: int = 256 << 20
    spill: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Window:
    """A window waiting for its forward pass."""

    index: int
    corner: tuple[int, int]
    pixels: Tensor


class SliceInferer:
    """Applies one network to the slices of files.

    Args:
        model: Maps images (N, C, H, W) to logits (N, K, H, W). Moved to `device` and put into
            evaluation mode.
        config: As in `segnetr.engine.inference.predictor.Predictor`, like all other arguments.
        intensity: Normalization.
        image_size: (height, width) in pixels of the network's input.
        num_classes: Number of classes K.
        channels: Input channels C.
        slices: How volumes are sliced.
        device: Device of the network.

    Raises:
        UsageError: If images are to be rotated by 90 degrees and are not square.
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
        slices: SliceConfig,
        device: torch.device,
    ) -> None:
        if config.tta == "d4" and image_size[0] != image_size[1]:
            raise UsageError(
                f"--tta d4 turns images by a quarter, and this model takes {image_size[0]} x "
                f"{image_size[1]} pixels; use --tta flips"
            )
        self.slices = slices
        self.num_classes = num_classes
        self.window_batch = config.window_batch
        self.mode = config.mode
        self.image_size = image_size
        self.channels = channels
        self.tta_transforms = TTA_TRANSFORMS[config.tta]
        self.model = model.to(device).eval()
        self.config = config
        self._intensity = intensity
        self._device = device
        # A GPU stores and moves float16 twice as fast. Three decimal places are enough for a
        # weighted mean of probabilities.
        self._sum_dtype = torch.float16 if device.type == "cuda" else torch.float32

    def open(self, image: ImageFile | VolumeFile, plan: BatchPlan) -> Slices:
        """Return the slices of a file as the network sees them."""
        if isinstance(image, VolumeFile):
            return open_streamed_stack(
                image, self.slices, self._intensity, block_bytes=plan.block_bytes
            )
        return open_stack(image, self.slices, self._intensity)

    def predict_slices(
        self,
        image: ImageFile | VolumeFile,
        slices: Slices,
        plan: BatchPlan,
        *,
        with_variance: bool = False,
    ) -> tuple[Iterator[Band], tuple[int, int]]:
        """Predict the probabilities of each slice, in order and in bands of whole rows.

        Args:
            image: The file.
            slices: Its slices, from `open`.
            plan: Batch sizes.
            with_variance: Append the variance over test-time augmentations to the K probabilities.

        Returns:
            The bands, and the (height, width) of their plane.

        Raises:
            ReadError: If the image has other channels than the network expects, or the network
                returns NaN for it.
            UsageError: If `intensity` does not fit the channels.
        """
        if self.mode == "resize":
            bands = self._predict_resized(image, slices, plan, with_variance=with_variance)
            return bands, self.image_size
        bands = self._predict_windows(image, slices, plan, with_variance=with_variance)
        return bands, slices.plane

    def warm_up(self, plan: BatchPlan) -> None:
        """Run the network on noise with the batch sizes of a plan.

        If volumes are resampled, this also imports SimpleITK, whose memory is then part of what
        `MemoryLimit` measures.
        """
        if self.slices.spacing_mm is not None:
            resample_slice(np.zeros((2, 2, 1), np.float32), (3, 3))
        # A generator of its own leaves the caller's random numbers alone.
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand((plan.windows, self.channels, *self.image_size), generator=generator)
        # The output of the previous pass, whose last window is still being added.
        shape = (plan.windows, self.num_classes, *self.image_size)
        before = torch.ones(shape, device=self._device)
        with torch.inference_mode():
            self.predict_batch(noise, plan)
        del before

    def _predict_resized(
        self, image: ImageFile | VolumeFile, slices: Slices, plan: BatchPlan, *, with_variance: bool
    ) -> Iterator[Band]:
        for start in range(0, slices.depth, plan.windows):
            indices = range(start, min(start + plan.windows, slices.depth))
            batch = torch.stack([self._prepare(image, slices.view(index)) for index in indices])
            probabilities = self.predict_batch(batch, plan, with_variance=with_variance)
            _check_finite(image, probabilities)
            for index, each in zip(indices, probabilities, strict=True):
                yield Band(index=index, top=0, probabilities=each)

    def _predict_windows(
        self, image: ImageFile | VolumeFile, slices: Slices, plan: BatchPlan, *, with_variance: bool
    ) -> Iterator[Band]:
        if self.config.inferer == "monai":
            yield from self._predict_planes_with_monai(image, slices, plan, with_variance)
            return
        margins = find_margins(slices.plane, self.image_size)
        height, width = (max(pair) for pair in zip(slices.plane, self.image_size, strict=True))
        grid = make_window_grid(
            (height, width),
            self.image_size,
            overlap=self.config.overlap,
            weights=self.config.weights,
            device=self._device,
        )
        windows = self._cut_windows(image, slices, grid)
        predicted = self._predict_batches(image, windows, plan, with_variance=with_variance)
        planes = self.num_classes + with_variance
        for index, group in itertools.groupby(predicted, key=lambda pair: pair[0].index):
            sums = WindowAccumulator(grid, index=index, num_classes=planes, dtype=self._sum_dtype)
            for window, probabilities in group:
                for band in sums.add(window.corner, probabilities):
                    yield _cut_margins(band, margins)
            yield _cut_margins(sums.result(), margins)

    def _predict_planes_with_monai(
        self, image: ImageFile | VolumeFile, slices: Slices, plan: BatchPlan, with_variance: bool
    ) -> Iterator[Band]:
        """Yield whole planes from MONAI's inferer, which keeps the sums of a whole plane."""
        from segnetr.engine.inference.monai_inferer import make_monai_inferer  # takes seconds

        inferer = make_monai_inferer(
            self.image_size,
            overlap=self.config.overlap,
            weights=self.config.weights,
            window_batch=plan.windows,
        )
        margins = find_margins(slices.plane, self.image_size)
        for index in range(slices.depth):
            prepared = self._prepare(image, slices.view(index))[None].to(self._device)
            probabilities = inferer(
                prepared, lambda batch: self.predict_batch(batch, plan, with_variance=with_variance)
            )
            _check_finite(image, probabilities)
            yield _cut_margins(Band(index=index, top=0, probabilities=probabilities[0]), margins)

    def _cut_windows(
        self, image: ImageFile | VolumeFile, slices: Slices, grid: WindowGrid
    ) -> Iterator[_Window]:
        height, width = grid.size
        for index in range(slices.depth):
            prepared = self._prepare(image, slices.view(index))
            for top, left in grid.corners:
                pixels = prepared[:, top : top + height, left : left + width]
                yield _Window(index=index, corner=(top, left), pixels=pixels)

    def _predict_batches(
        self,
        image: ImageFile | VolumeFile,
        windows: Iterator[_Window],
        plan: BatchPlan,
        *,
        with_variance: bool,
    ) -> Iterator[tuple[_Window, Tensor]]:
        """Yield each window with its probabilities (K, h, w). Batches may span several slices."""
        while batch := list(itertools.islice(windows, plan.windows)):
            images = torch.stack([window.pixels for window in batch])
            probabilities = self.predict_batch(images, plan, with_variance=with_variance)
            _check_finite(image, probabilities)
            yield from zip(batch, probabilities, strict=True)

    def _prepare(self, image: ImageFile | VolumeFile, pixels: NDArray[Any]) -> Tensor:
        """Turn (h, w, C) into network input, in the order of the evaluation transform."""
        present = pixels.shape[2]
        if present not in (self.channels, 1):
            raise ReadError(
                image.path, f"it has {present} channels where the model takes {self.channels}"
            )
        uses_windows = self.mode == "window"
        if not uses_windows:
            pixels = resize_image(pixels, self.image_size)
        elif image.kind == "volume":
            pixels = pad_plane(pixels, self.image_size, value=pixels.min())
        if present != self.channels:
            pixels = np.repeat(pixels, self.channels, axis=2)
        values = normalize(pixels, self._intensity).transpose(2, 0, 1)
        prepared = torch.from_numpy(np.ascontiguousarray(values))
        if uses_windows:
            # A small image is padded with the mean, which is 0 after normalization.
            rows, columns = find_margins((prepared.shape[1], prepared.shape[2]), self.image_size)
            prepared = F.pad(prepared, (*columns, *rows))
        return prepared

    def predict_batch(
        self, batch: Tensor, plan: BatchPlan, *, with_variance: bool = False
    ) -> Tensor:
        """Return the probabilities (N, K, h, w) of normalized images (N, C, h, w).

        They are the mean over the test-time augmentations. Probabilities are averaged and not
        logits, as over windows, so that the output of `--save-prob` still sums to 1.

        Args:
            batch: Normalized images.
            plan: Batch sizes.
            with_variance: Append the variance over the augmentations: (N, K + 1, h, w).
        """
        images = batch.to(self._device)
        if len(self.tta_transforms) == 1 and not with_variance:
            return self._run(images)  # the only transform is the identity
        combine = tta_variance if with_variance else tta_mean
        return combine(self.tta_transforms, self._run, images, tta_batch=plan.tta_batch)

    def _run(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.model(batch)
        expected = (len(batch), self.num_classes, *batch.shape[2:])
        if logits.shape != expected:
            raise ValueError(
                f"the network returned {tuple(logits.shape)} instead of {expected}; check the "
                "number of classes"
            )
        return logits.float().softmax(dim=1)


def _check_finite(image: ImageFile | VolumeFile, probabilities: Tensor) -> None:
    # One class is enough: softmax returns numbers for all classes of a pixel, or for none. Their
    # sum is enough as well: NaN carries through it, and it is at most the number of pixels.
    if not bool(torch.isfinite(probabilities[:, 0].sum())):
        raise ReadError(
            image.path, "the network returned NaN for this image; check its gray values"
        )


def _cut_margins(band: Band, margins: tuple[tuple[int, int], tuple[int, int]]) -> Band:
    """Remove the padding around a plane."""
    (above, below), (left, right) = margins
    if not (above or below or left or right):
        return band
    # Rows are padded only if one band of windows covers all of them.
    rows, columns = band.probabilities.shape[1:]
    inside = band.probabilities[:, above : rows - below, left : columns - right]
    return Band(index=band.index, top=band.top, probabilities=inside)

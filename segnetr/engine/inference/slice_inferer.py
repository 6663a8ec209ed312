"""A network applied to the slices of a file: resized or by sliding windows.

Windows of one slice, or of several, and the ways of looking at them go through the network
together. Answers come out in the order of the slices, on the plane that the network saw, and
nothing but the windows in hand and the sums of one band is kept.
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
from segnetr.data.volumes.slice_stack import Slices, find_margins, open_stack, pad_plane
from segnetr.data.volumes.streamed_stack import open_streamed_stack
from segnetr.engine.inference.sliding_windows import Band, BandSums, WindowGrid, lay_windows
from segnetr.engine.inference.tta import TTA_TRANSFORMS, average_over, spread_over
from segnetr.errors import ReadError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """How much is worked on at once; the answer does not depend on it, but for rounding.

    Attributes:
        windows: Windows, or resized slices, in one forward pass.
        views: Ways of looking at each of them in one forward pass, 1 to 8.
        block_bytes: Of a volume that is cut across its stored planes: what is held of it at once.
        spill: Folder on whose disk the labels lie; None: in memory.
    """

    windows: int
    views: int = 8
    block_bytes: int = 256 << 20
    spill: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Window:
    """A window on its way through the network."""

    index: int
    corner: tuple[int, int]
    pixels: Tensor


class SliceInferer:
    """Applies one network to the slices of files.

    Args:
        model: Maps images (N, C, H, W) to logits (N, K, H, W); moved to `device` and put into
            evaluation mode.
        config: As in `segnetr.engine.inference.predictor.Predictor`, and so the others.
        intensity: How values are normalized.
        image_size: (height, width) in pixels of what the network takes.
        num_classes: K.
        channels: C.
        slices: How volumes are cut.
        device: Where the network runs.

    Raises:
        UsageError: If images are to be turned by a quarter and are not square.
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
        # A graphics card holds and moves halves twice as fast; three decimal places are enough
        # for a weighted mean of probabilities.
        self._sum_dtype = torch.float16 if device.type == "cuda" else torch.float32

    def open(self, image: ImageFile | VolumeFile, pace: BatchPlan) -> Slices:
        """Cut a file into the slices that the network sees."""
        if isinstance(image, VolumeFile):
            return open_streamed_stack(
                image, self.slices, self._intensity, block_bytes=pace.block_bytes
            )
        return open_stack(image, self.slices, self._intensity)

    def answer(
        self,
        image: ImageFile | VolumeFile,
        stack: Slices,
        pace: BatchPlan,
        *,
        spread: bool = False,
    ) -> tuple[Iterator[Band], tuple[int, int]]:
        """Give the probabilities of each slice, in order and in bands of whole rows.

        Args:
            image: The file.
            stack: Its slices, from `open`.
            pace: How much is worked on at once.
            spread: Put the variance over the ways of looking behind the K probabilities.

        Returns:
            The bands, and the (height, width) of the plane that they lie on.

        Raises:
            ReadError: If the image has other channels than the network takes, or the network
                answers it with NaN.
            UsageError: If `intensity` does not fit the channels.
        """
        if self.mode == "resize":
            return self._answer_resized(image, stack, pace, spread=spread), self.image_size
        return self._answer_windows(image, stack, pace, spread=spread), stack.plane

    def rehearse(self, pace: BatchPlan) -> None:
        """Send noise through the network as passes of this pace would send windows."""
        # Of its own source: the caller's random numbers stay where they are.
        source = torch.Generator().manual_seed(0)
        noise = torch.rand((pace.windows, self.channels, *self.image_size), generator=source)
        # What the pass before said, whose last window is still added up when the next one begins.
        shape = (pace.windows, self.num_classes, *self.image_size)
        before = torch.ones(shape, device=self._device)
        with torch.inference_mode():
            self._estimate(noise, pace)
        del before

    def _answer_resized(
        self, image: ImageFile | VolumeFile, stack: Slices, pace: BatchPlan, *, spread: bool
    ) -> Iterator[Band]:
        for start in range(0, stack.depth, pace.windows):
            indices = range(start, min(start + pace.windows, stack.depth))
            batch = torch.stack([self._prepare(image, stack.view(index)) for index in indices])
            answers = self._check(image, self._estimate(batch, pace, spread=spread))
            for index, answer in zip(indices, answers, strict=True):
                yield Band(index=index, top=0, answer=answer)

    def _answer_windows(
        self, image: ImageFile | VolumeFile, stack: Slices, pace: BatchPlan, *, spread: bool
    ) -> Iterator[Band]:
        margins = find_margins(stack.plane, self.image_size)
        height, width = (max(pair) for pair in zip(stack.plane, self.image_size, strict=True))
        grid = lay_windows(
            (height, width),
            self.image_size,
            overlap=self.config.overlap,
            weights=self.config.weights,
            device=self._device,
        )
        cut = self._cut_windows(image, stack, grid)
        answered = self._answer_in_turn(image, cut, pace, spread=spread)
        planes = self.num_classes + spread
        for index, windows in itertools.groupby(answered, key=lambda pair: pair[0].index):
            sums = BandSums(grid, index=index, num_classes=planes, dtype=self._sum_dtype)
            for window, answer in windows:
                for band in sums.add(window.corner, answer):
                    yield _cut_margins(band, margins)
            yield _cut_margins(sums.finish(), margins)

    def _cut_windows(
        self, image: ImageFile | VolumeFile, stack: Slices, grid: WindowGrid
    ) -> Iterator[_Window]:
        height, width = grid.size
        for index in range(stack.depth):
            prepared = self._prepare(image, stack.view(index))
            for top, left in grid.corners:
                pixels = prepared[:, top : top + height, left : left + width]
                yield _Window(index=index, corner=(top, left), pixels=pixels)

    def _answer_in_turn(
        self,
        image: ImageFile | VolumeFile,
        windows: Iterator[_Window],
        pace: BatchPlan,
        *,
        spread: bool,
    ) -> Iterator[tuple[_Window, Tensor]]:
        """Give each window with its probabilities (K, h, w), those of several slices together."""
        while batch := list(itertools.islice(windows, pace.windows)):
            images = torch.stack([window.pixels for window in batch])
            answers = self._estimate(images, pace, spread=spread)
            yield from zip(batch, self._check(image, answers), strict=True)

    def _prepare(self, image: ImageFile | VolumeFile, pixels: NDArray[Any]) -> Tensor:
        """Bring (h, w, C) to what the network takes, in the order of the evaluation transform."""
        present = pixels.shape[2]
        if present not in (self.channels, 1):
            raise ReadError(
                image.path, f"it has {present} channels where the model takes {self.channels}"
            )
        slides = self.mode == "window"
        if not slides:
            pixels = resize_image(pixels, self.image_size)
        elif image.kind == "volume":
            pixels = pad_plane(pixels, self.image_size, value=pixels.min())
        if present != self.channels:
            pixels = np.repeat(pixels, self.channels, axis=2)
        values = normalize(pixels, self._intensity).transpose(2, 0, 1)
        prepared = torch.from_numpy(np.ascontiguousarray(values))
        if slides:
            # A small image gets a frame of the mean, which is 0 once it is normalized.
            rows, columns = find_margins((prepared.shape[1], prepared.shape[2]), self.image_size)
            prepared = F.pad(prepared, (*columns, *rows))
        return prepared

    def _estimate(self, batch: Tensor, pace: BatchPlan, *, spread: bool = False) -> Tensor:
        """Turn images (N, C, h, w) into probabilities (N, K, h, w), the mean over symmetries.

        With `spread` their variance over the symmetries stands behind them.

        Probabilities and not logits are averaged, over symmetries as over windows, so that what
        `--save-prob` writes still sums to 1.
        """
        images = batch.to(self._device)
        look = spread_over if spread else average_over
        return look(self.tta_transforms, self._run, images, together=pace.views)

    def _run(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.model(batch)
        expected = (len(batch), self.num_classes, *batch.shape[2:])
        if logits.shape != expected:
            raise ValueError(f"the network gives {tuple(logits.shape)} instead of {expected}")
        return logits.float().softmax(dim=1)

    def _check(self, image: ImageFile | VolumeFile, answers: Tensor) -> Tensor:
        # One class is enough: softmax gives a pixel numbers for all classes, or for none. And so is
        # their sum, which NaN goes through and which is no more than the number of pixels.
        if not bool(torch.isfinite(answers[:, 0].sum())):
            raise ReadError(
                image.path, "the network answers this image with NaN; look at its gray values"
            )
        return answers


def _cut_margins(band: Band, margins: tuple[tuple[int, int], tuple[int, int]]) -> Band:
    """Take away what padding had put around a plane."""
    (above, below), (left, right) = margins
    if not (above or below or left or right):
        return band
    # Rows are padded only where one band of windows covers them all.
    rows, columns = band.answer.shape[1:]
    answer = band.answer[:, above : rows - below, left : columns - right]
    return Band(index=band.index, top=band.top, answer=answer)

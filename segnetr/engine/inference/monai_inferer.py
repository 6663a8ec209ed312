"""Inference with MONAI, and the bounded-memory sliding windows as a MONAI inferer.

Import this module only when it is used: importing MONAI takes seconds.
"""

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer, SlidingWindowInferer
from torch import Tensor

from segnetr.config.schema.segmentation import PredictConfig
from segnetr.data.volumes.slice_stack import find_margins
from segnetr.engine.inference.sliding_windows import (
    Weights,
    WindowAccumulator,
    gather_planes,
    make_window_grid,
)


def make_monai_inferer(
    image_size: tuple[int, int], *, overlap: float, weights: Weights, window_batch: int
) -> Inferer:
    """Return MONAI's sliding-window inferer with our settings.

    Args:
        image_size: (height, width) of a window in pixels.
        overlap: Overlap of neighboring windows as a share of the window, 0 to below 1.
        weights: Weights of the pixels of a window.
        window_batch: Windows in one forward pass.
    """
    return SlidingWindowInferer(
        roi_size=image_size, sw_batch_size=window_batch, overlap=overlap, mode=weights
    )


def make_validation_inferer(config: PredictConfig, image_size: tuple[int, int]) -> Inferer:
    """Return MONAI's inferer for validation during training.

    Mode "resize" runs the network on images that already have the training size. Mode "window"
    slides windows of that size over images of any size.

    Args:
        config: Mode, overlap, weights and batch size.
        image_size: (height, width) of the training images in pixels.
    """
    if config.mode == "resize":
        return SimpleInferer()
    return make_monai_inferer(
        image_size,
        overlap=config.overlap,
        weights=config.weights,
        window_batch=config.window_batch,
    )


class BoundedWindowInferer(Inferer):  # type: ignore[misc]
    """The bounded-memory sliding windows, usable in any MONAI evaluator.

    On the device of the network it keeps the sums of one row of windows only. The result has the
    size of the input and is assembled on `output_device`. It agrees with MONAI's
    `SlidingWindowInferer` up to rounding.

    Args:
        roi_size: (height, width) of a window in pixels. Smaller images are padded with 0.
        sw_batch_size: Windows in one forward pass.
        overlap: Overlap of neighboring windows as a share of the window, 0 to below 1.
        mode: Weights of the pixels of a window, "gaussian" or "constant".
        output_device: Device of the result. None: that of the input.
    """

    def __init__(
        self,
        roi_size: tuple[int, int],
        *,
        sw_batch_size: int = 4,
        overlap: float = 0.25,
        mode: Weights = "gaussian",
        output_device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.roi_size = roi_size
        self.sw_batch_size = sw_batch_size
        self.overlap = overlap
        self.mode: Weights = mode
        self.output_device = output_device

    def __call__(
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the output (N, K, H, W) of a network for images (N, C, H, W).

        Args:
            inputs: The images.
            network: Maps windows (B, C, h, w) to (B, K, h, w): logits or probabilities.
            args: Passed to the network.
            kwargs: Passed to the network.
        """
        # MONAI's evaluator passes MetaTensors, whose operations cost far more.
        images = torch.as_tensor(inputs).as_subclass(torch.Tensor)
        planes = [self._run(image, network, *args, **kwargs) for image in images]
        return torch.stack(planes).to(self.output_device or images.device)

    def _run(
        self, image: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        height, width = image.shape[1:]
        (above, below), (left, right) = find_margins((height, width), self.roi_size)
        padded = torch.nn.functional.pad(image, (left, right, above, below))
        rows, columns = self.roi_size
        grid = make_window_grid(
            (padded.shape[1], padded.shape[2]),
            self.roi_size,
            overlap=self.overlap,
            weights=self.mode,
            device=image.device,
        )
        sums: WindowAccumulator | None = None
        bands = []
        for start in range(0, len(grid.corners), self.sw_batch_size):
            corners = grid.corners[start : start + self.sw_batch_size]
            windows = [padded[:, top : top + rows, at : at + columns] for top, at in corners]
            outputs = network(torch.stack(windows), *args, **kwargs)
            if sums is None:
                sums = WindowAccumulator(
                    grid, index=0, num_classes=outputs.shape[1], dtype=torch.float32
                )
            for corner, output in zip(corners, outputs, strict=True):
                bands += list(sums.add(corner, output))
        if sums is None:
            raise ValueError("the image has no window")
        bands.append(sums.result())
        ((_, plane),) = gather_planes(iter(bands), padded.shape[1])
        return plane[:, above : above + height, left : left + width]

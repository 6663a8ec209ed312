"""Apply a classifier to images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybrid_backbones import Backbone
from segnetr.config.schema.classification import ClassifyPredictConfig
from segnetr.config.schema.classification_recipe import ClassificationAugmentConfig
from segnetr.config.schema.segmentation import IntensityConfig
from segnetr.data.classification.loaders import EvalTransform
from segnetr.data.preprocessing.intensity import normalize
from segnetr.errors import SegNetrError


class Classifier:
    """Predicts class probabilities of images, resized and normalized as in validation.

    Args:
        model: Maps images (N, C, H, W) to logits (N, K). Moved to `device` and put into evaluation
            mode.
        config: Test-time augmentation and batch size.
        multi_label: Whether the task is multi-label, with an independent probability per class.
        fitting: How images are resized to the network's input.
        intensity: Normalization.
        image_size: (height, width) in pixels.
        device: Device of the network.
    """

    def __init__(
        self,
        model: Backbone,
        *,
        config: ClassifyPredictConfig,
        multi_label: bool,
        fitting: ClassificationAugmentConfig,
        intensity: IntensityConfig,
        image_size: tuple[int, int],
        device: str | torch.device = "cpu",
    ) -> None:
        self._device = torch.device(device)
        self._model = model.to(self._device).eval()
        self._config, self._multi_label, self._intensity = config, multi_label, intensity
        self._fit = EvalTransform(fitting, image_size=image_size)

    @property
    def batch_size(self) -> int:
        """Images in one forward pass."""
        return self._config.batch_size

    @property
    def model(self) -> Backbone:
        """The network itself."""
        return self._model

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self._device

    def fit(self, image: NDArray[Any]) -> NDArray[Any]:
        """Resize an image (H, W, C) to the input of the network, (h, w, C)."""
        return self._fit(image)

    def prepare(self, image: NDArray[Any]) -> Tensor:
        """Turn an image (H, W, C) into network input (C, h, w)."""
        values = normalize(self.fit(image), self._intensity).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(values))

    @torch.inference_mode()
    def estimate(self, images: Sequence[Tensor]) -> NDArray[np.float64]:
        """Return the probabilities (N, K) of prepared images.

        Raises:
            SegNetrError: If the network returns NaN.
        """
        batch = torch.stack(list(images)).to(self._device)
        probabilities = self._run(batch)
        if self._config.tta == "flips":
            probabilities = (probabilities + self._run(batch.flip(3))) / 2
        if not bool(torch.isfinite(probabilities).all()):
            raise SegNetrError("the network returned NaN; train it again with --amp off")
        return np.asarray(probabilities.cpu().numpy())

    def _run(self, batch: Tensor) -> Tensor:
        logits: Tensor = self._model(batch).double()
        return logits.sigmoid() if self._multi_label else logits.softmax(dim=1)

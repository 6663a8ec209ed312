"""A classifier applied to images."""

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
    """Gives the probabilities of images, fitted and normalized as in validation.

    Args:
        model: Maps images (N, C, H, W) to logits (N, K); moved to `device` and put into evaluation
            mode.
        config: Mirroring, and images in one forward pass.
        several: Each class has a probability of its own.
        fitting: How images are brought to the network's size.
        intensity: How values are normalized.
        image_size: (height, width) in pixels.
        device: Where the network runs.
    """

    def __init__(
        self,
        model: Backbone,
        *,
        config: ClassifyPredictConfig,
        several: bool,
        fitting: ClassificationAugmentConfig,
        intensity: IntensityConfig,
        image_size: tuple[int, int],
        device: str | torch.device = "cpu",
    ) -> None:
        self._device = torch.device(device)
        self._model = model.to(self._device).eval()
        self._config, self._several, self._intensity = config, several, intensity
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
        """Where the network runs."""
        return self._device

    def fit(self, image: NDArray[Any]) -> NDArray[Any]:
        """Bring a image (H, W, C) to what the network sees of it, (h, w, C)."""
        return self._fit(image)

    def prepare(self, image: NDArray[Any]) -> Tensor:
        """Turn a image (H, W, C) into what the network takes, (C, h, w)."""
        values = normalize(self.fit(image), self._intensity).transpose(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(values))

    @torch.inference_mode()
    def estimate(self, images: Sequence[Tensor]) -> NDArray[np.float64]:
        """Give the probabilities (N, K) of prepared images.

        Raises:
            SegNetrError: If the network answers with NaN.
        """
        batch = torch.stack(list(images)).to(self._device)
        answers = self._run(batch)
        if self._config.tta == "flips":
            answers = (answers + self._run(batch.flip(3))) / 2
        if not bool(torch.isfinite(answers).all()):
            raise SegNetrError("the network answers with NaN; train anew with --amp off")
        return np.asarray(answers.cpu().numpy())

    def _run(self, batch: Tensor) -> Tensor:
        logits: Tensor = self._model(batch).double()
        return logits.sigmoid() if self._several else logits.softmax(dim=1)

"""Tasks of a training: the loss of a batch, and the validation scores."""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from segnetr.data.case import Batch
from segnetr.errors import UsageError

Inferer = Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]
"""Applies a network to a batch, as `monai.inferers.Inferer`."""


class Task(Protocol):
    """A loss for a batch and scores for a set of batches.

    Attributes:
        monitor: The validation score that selects the best weights.
        higher_is_better: Whether higher values of this score are better.
    """

    monitor: str
    higher_is_better: bool

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the loss terms, scalars; "total" is minimized."""
        ...

    def validate(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the scores of a network in evaluation mode."""
        ...


class SegmentationTask:
    """Segmentation of images.

    The validation Dice is computed for each image at the training size, averaged over the
    foreground classes and then over the images, so it does not depend on the batch size. A class
    absent from both masks scores 1. (`segnetr evaluate` scores on the original grid.)

    Args:
        loss: Loss of logits and masks.
        num_classes: K, including the background.
        inferer: Applies the network in validation; None: one call for a batch.

    Attributes:
        monitor: "dice".
        higher_is_better: True.
    """

    monitor = "dice"
    higher_is_better = True

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        num_classes: int,
        inferer: Inferer | None = None,
    ) -> None:
        self._loss = loss
        self._num_classes = num_classes
        self._inferer = inferer

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of a batch of images (N, C, H, W) and masks (N, 1, H, W)."""
        return {"total": self._loss(model(batch["image"]), batch["mask"])}

    @torch.no_grad()
    def validate(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the mean "dice" and "loss" over all images.

        Raises:
            UsageError: If there is no image.
        """
        dice: list[float] = []
        losses: list[float] = []
        for batch in batches:
            image, mask = batch["image"], batch["mask"]
            logits = model(image) if self._inferer is None else self._inferer(image, model)
            labels = logits.argmax(dim=1, keepdim=True)
            dice += dice_by_image(labels, mask, num_classes=self._num_classes).tolist()
            losses += [
                float(self._loss(logits[i : i + 1], mask[i : i + 1])) for i in range(len(logits))
            ]
        if not dice:
            raise UsageError("no case for validation; raise data.validation_share or add cases")
        return {"dice": sum(dice) / len(dice), "loss": sum(losses) / len(losses)}


def dice_by_image(prediction: Tensor, ground_truth: Tensor, *, num_classes: int) -> Tensor:
    """Return the Dice of each image, averaged over the foreground classes.

    Args:
        prediction: Class indices (N, 1, H, W).
        ground_truth: Class indices (N, 1, H, W).
        num_classes: K, including the background.

    Returns:
        Dice (N) in float64, 0 to 1; a class absent from both masks scores 1.
    """
    classes = torch.arange(1, num_classes, device=ground_truth.device).view(1, -1, 1, 1)
    predicted, expected = prediction == classes, ground_truth == classes
    intersection = (predicted & expected).sum(dim=(2, 3)).double()
    sizes = (predicted.sum(dim=(2, 3)) + expected.sum(dim=(2, 3))).double()
    dice = torch.where(sizes > 0, 2 * intersection / sizes.clamp_min(1), torch.ones_like(sizes))
    return dice.mean(dim=1)

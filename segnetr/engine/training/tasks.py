"""What a network is trained for: its loss, and how it is judged meanwhile."""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from segnetr.data.case import Batch
from segnetr.errors import UsageError


class Task(Protocol):
    """A loss for a batch and scores for a set of batches.

    Attributes:
        monitor: The validation score that decides which weights are best.
        higher_is_better: How that score is read.
    """

    monitor: str
    higher_is_better: bool

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Give the terms of the loss, scalars; "total" is the one that is minimized."""
        ...

    def validate(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Give the scores of a network in evaluation mode."""
        ...


class SegmentationTask:
    """Segmentation of images.

    The validation Dice is taken for each image on the grid of the loader, averaged over the
    foreground classes and then over the images: it does not depend on the batch size. A class
    absent from both masks counts 1. (`segnetr evaluate` scores on the original grid.)

    Attributes:
        monitor: "dice".
        higher_is_better: True.
    """

    monitor = "dice"
    higher_is_better = True

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], *, num_classes: int) -> None:
        self._loss = loss
        self._num_classes = num_classes

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Give the loss of a batch, images (N, C, H, W) and masks (N, 1, H, W)."""
        return {"total": self._loss(model(batch["image"]), batch["mask"])}

    @torch.no_grad()
    def validate(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Give the mean "dice" and "loss" over all images.

        Raises:
            UsageError: If there is no image.
        """
        dice: list[float] = []
        losses: list[float] = []
        for batch in batches:
            logits = model(batch["image"])
            dice += dice_by_image(
                logits.argmax(dim=1, keepdim=True), batch["mask"], num_classes=self._num_classes
            ).tolist()
            losses += [
                float(self._loss(logits[i : i + 1], batch["mask"][i : i + 1]))
                for i in range(len(logits))
            ]
        if not dice:
            raise UsageError("no case for validation; raise data.validation_share or add cases")
        return {"dice": sum(dice) / len(dice), "loss": sum(losses) / len(losses)}


def dice_by_image(prediction: Tensor, ground_truth: Tensor, *, num_classes: int) -> Tensor:
    """Give each image's Dice, averaged over the foreground classes.

    Args:
        prediction: Class indices (N, 1, H, W).
        ground_truth: Class indices (N, 1, H, W).
        num_classes: K, background included.

    Returns:
        Dice (N) in float64, 0 to 1; a class absent from both counts 1.
    """
    classes = torch.arange(1, num_classes, device=ground_truth.device).view(1, -1, 1, 1)
    found, real = prediction == classes, ground_truth == classes
    shared = (found & real).sum(dim=(2, 3)).double()
    sizes = (found.sum(dim=(2, 3)) + real.sum(dim=(2, 3))).double()
    dice = torch.where(sizes > 0, 2 * shared / sizes.clamp_min(1), torch.ones_like(sizes))
    return dice.mean(dim=1)

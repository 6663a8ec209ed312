"""Classification of images: loss and validation scores."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segnetr.data.case import Batch
from segnetr.errors import UsageError
from segnetr.metrics.classification import LabeledPredictions, measure_all

Monitor = Literal["accuracy", "balanced_accuracy", "auroc", "f1", "loss"]

_SHOWN = ("accuracy", "balanced_accuracy", "auroc", "f1")
# Only used for the calibration error, which is not shown during training.
_BINS = 15


class ClassificationTask:
    """Classification with one or with several labels per image.

    The loss is the cross entropy of softmax and labels. With several labels, it is the binary cross
    entropy of sigmoid and labels, averaged over the classes. Labels may be fractions of several
    classes, as with mixup and cutmix. The loss of an image does not depend on the other images of
    its batch: class weights are not divided by their sum.

    Attributes:
        monitor: The validation score that selects the best weights.
        higher_is_better: Whether higher values of this score are better.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        multi_label: bool,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        monitor: Monitor = "balanced_accuracy",
    ) -> None:
        """Create the task.

        Args:
            num_classes: K.
            multi_label: Whether an image has any number of labels.
            label_smoothing: Share of the target that is distributed over all classes.
            class_weights: (K,), weight of each class; with several labels, of its positive labels.
            monitor: See above.
        """
        self._num_classes, self._multi_label = num_classes, multi_label
        self._smoothing, self._weights = label_smoothing, class_weights
        self.monitor: str = monitor
        self.higher_is_better = monitor != "loss"

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of a batch of images (N, C, H, W) and labels (N,) or (N, K)."""
        logits = model(batch["image"])
        return {"total": self._losses(logits, self._targets(batch["label"])).mean()}

    @torch.no_grad()
    def validate(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Return "loss" (without smoothing and weights) and the scores that are defined.

        Raises:
            UsageError: If there is no image, or the monitored score is undefined.
        """
        probabilities, ground_truth, losses, case_ids = [], [], [], []
        for batch in batches:
            logits = model(batch["image"]).double()
            targets = self._targets(batch["label"]).double()
            probabilities.append(self.estimate(logits).cpu().numpy())
            ground_truth.append(targets.cpu().numpy())
            losses += self._plain_losses(logits, targets).tolist()
            case_ids += batch["case_id"]
        if not losses:
            raise UsageError("no case for validation; raise data.validation_share or add cases")
        predictions = LabeledPredictions(
            case_ids=tuple(case_ids),
            probabilities=np.concatenate(probabilities),
            ground_truth=np.concatenate(ground_truth).astype(np.int64),
            multi_label=self._multi_label,
            groups=("",) * len(case_ids),
        )
        measures = measure_all(predictions, bins=_BINS)
        scores = {name: float(measures[name][0]) for name in _SHOWN}
        scores = {name: value for name, value in scores.items() if value == value}
        scores["loss"] = sum(losses) / len(losses)
        if self.monitor not in scores:
            raise UsageError(
                f"train.monitor {self.monitor!r} is undefined, because all validation cases are of "
                "one class; use --set train.monitor=loss, or change data.split_seed"
            )
        return scores

    def estimate(self, logits: Tensor) -> Tensor:
        """Convert logits (N, K) to probabilities."""
        return logits.sigmoid() if self._multi_label else logits.softmax(dim=1)

    def _targets(self, label: Tensor) -> Tensor:
        if label.ndim == 1:
            return F.one_hot(label, self._num_classes).float()
        return label.float()

    def _losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each image, (N,)."""
        weights = None if self._weights is None else self._weights.to(logits.device)
        if self._multi_label:
            smooth = targets * (1 - self._smoothing) + self._smoothing / 2
            terms = F.binary_cross_entropy_with_logits(
                logits.float(), smooth, pos_weight=weights, reduction="none"
            )
            return terms.mean(dim=1)
        smooth = targets * (1 - self._smoothing) + self._smoothing / self._num_classes
        if weights is not None:
            smooth = smooth * (targets * weights).sum(dim=1, keepdim=True)
        return -(smooth * logits.float().log_softmax(dim=1)).sum(dim=1)

    def _plain_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self._multi_label:
            terms = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
            return terms.mean(dim=1)
        return -(targets * logits.log_softmax(dim=1)).sum(dim=1)


def balance_classes(labels: Tensor, *, num_classes: int, multi_label: bool) -> Tensor:
    """Return class weights that compensate for rare classes.

    Args:
        labels: (N,) class indices; with several labels (N, K), 0 or 1.
        num_classes: K.
        multi_label: Whether a case has any number of labels.

    Returns:
        (K,). One label: N / (K n_k), so that the mean weight of a case is 1. Several labels: the
        number of negative cases of each class divided by the number of its positive cases.
    """
    if multi_label:
        true = labels.sum(dim=0).float()
        return (len(labels) - true) / true
    counts = torch.bincount(labels, minlength=num_classes).float()
    return len(labels) / (num_classes * counts)

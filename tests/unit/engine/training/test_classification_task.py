"""Test the loss and the validation of a classifier."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segnetr.engine.training.classification import ClassificationTask, balance_classes
from segnetr.errors import UsageError

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-2.0, 3.0, 0.0], [0.0, 0.0, 4.0]])
LABELS = torch.tensor([0, 2, 1, 2])


class Fixed(nn.Module):
    """Return the images as logits."""

    def forward(self, image):
        return image.flatten(1)


def batch(logits=LOGITS, label=LABELS, start: int = 0):
    ids = [f"c{start + i}" for i in range(len(logits))]
    return {"image": logits[:, :, None, None], "label": label, "case_id": ids}


def loss(task: ClassificationTask, **changed) -> float:
    return float(task.loss(Fixed(), batch(**changed))["total"])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_cross_entropy_with_label_smoothing(smoothing):
    task = ClassificationTask(num_classes=3, multi_label=False, label_smoothing=smoothing)
    expected = F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    assert loss(task) == pytest.approx(float(expected), rel=1e-6)
    soft = F.one_hot(LABELS, 3).float()
    assert loss(task, label=soft) == pytest.approx(float(expected), rel=1e-6)


def test_loss_of_mixed_labels_is_the_mixture_of_losses():
    task = ClassificationTask(num_classes=3, multi_label=False, label_smoothing=0.1)
    one, other = F.one_hot(LABELS, 3).float(), F.one_hot(LABELS.flip(0), 3).float()
    mixed = loss(task, label=0.3 * one + 0.7 * other)
    assert mixed == pytest.approx(0.3 * loss(task, label=one) + 0.7 * loss(task, label=other))


def test_class_weights_scale_the_loss_of_an_image_independently_of_its_batch():
    weights = torch.tensor([3.0, 1.0, 0.5])
    task = ClassificationTask(num_classes=3, multi_label=False, class_weights=weights)
    each = F.cross_entropy(LOGITS, LABELS, reduction="none") * weights[LABELS]
    assert loss(task) == pytest.approx(float(each.mean()), rel=1e-6)
    alone = [loss(task, logits=LOGITS[i : i + 1], label=LABELS[i : i + 1]) for i in range(4)]
    assert sum(alone) / 4 == pytest.approx(loss(task), rel=1e-6)


def test_multilabel_loss_is_binary_cross_entropy():
    ground_truth = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    weights = torch.tensor([2.0, 1.0, 5.0])
    task = ClassificationTask(num_classes=3, multi_label=True, class_weights=weights)
    expected = F.binary_cross_entropy_with_logits(LOGITS, ground_truth, pos_weight=weights)
    assert loss(task, label=ground_truth) == pytest.approx(float(expected), rel=1e-6)


def test_balanced_class_weights_have_mean_one_over_cases():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    weights = balance_classes(labels, num_classes=3, multi_label=False)
    assert float(weights[labels].mean()) == pytest.approx(1)
    assert float(weights[0] * 4) == pytest.approx(float(weights[2]))
    table = torch.tensor([[1, 0], [1, 1], [1, 0], [0, 0]])
    assert balance_classes(table, num_classes=2, multi_label=True).tolist() == [
        pytest.approx(1 / 3), 3.0,
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 3, 4])
def test_validation_does_not_depend_on_the_batch_size(size):
    task = ClassificationTask(num_classes=3, multi_label=False, label_smoothing=0.2)
    parts = [batch(LOGITS[i : i + size], LABELS[i : i + size], start=i) for i in range(0, 4, size)]
    scores = task.validate(Fixed(), parts)
    assert scores["accuracy"] == 1.0
    assert scores["loss"] == pytest.approx(float(F.cross_entropy(LOGITS, LABELS)))
    assert set(scores) == {"accuracy", "balanced_accuracy", "auroc", "f1", "loss"}


def test_undefined_score_is_excluded_and_not_monitored():
    one_class = [batch(label=torch.zeros(4, dtype=torch.int64))]
    scores = ClassificationTask(num_classes=3, multi_label=False).validate(Fixed(), one_class)
    assert "auroc" not in scores
    assert scores["balanced_accuracy"] == 0.25
    task = ClassificationTask(num_classes=3, multi_label=False, monitor="auroc")
    with pytest.raises(UsageError, match="is undefined"):
        task.validate(Fixed(), one_class)
    with pytest.raises(UsageError, match="no case for validation"):
        task.validate(Fixed(), [])


def test_lower_is_better_only_for_the_loss():
    kinds = {
        name: ClassificationTask(num_classes=2, multi_label=False, monitor=name).higher_is_better
        for name in ("accuracy", "auroc", "loss")
    }
    assert kinds == {"accuracy": True, "auroc": True, "loss": False}


def test_probabilities_sum_to_one_unless_the_task_is_multilabel():
    single = ClassificationTask(num_classes=3, multi_label=False).estimate(LOGITS)
    assert np.allclose(single.sum(dim=1), 1)
    multi_label = ClassificationTask(num_classes=3, multi_label=True).estimate(LOGITS)
    assert torch.equal(multi_label, LOGITS.sigmoid())

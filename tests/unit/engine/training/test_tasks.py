import pytest
import torch
from torch import Tensor, nn

from segnetr.config.schema.segmentation import PredictConfig
from segnetr.engine.training.tasks import SegmentationTask, dice_by_image
from segnetr.engine.training.volume_task import build_inferer
from segnetr.errors import UsageError
from segnetr.losses import build_loss

COUNT, CLASSES = 7, 3


class Pixelwise(nn.Module):
    """A network that computes each pixel separately, with the same rounding in any batch."""

    def forward(self, image: Tensor) -> Tensor:
        return image * 2


def draw_batches(size: int):
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(COUNT, CLASSES, 8, 8, generator=generator)
    mask = torch.randint(0, CLASSES, (COUNT, 1, 8, 8), generator=generator)
    for start in range(0, COUNT, size):
        part = slice(start, start + size)
        ids = [str(i) for i in range(COUNT)][part]
        yield {"image": image[part], "mask": mask[part], "case_id": ids}


def make_task(name: str = "dice_ce") -> SegmentationTask:
    return SegmentationTask(build_loss(name, num_classes=CLASSES), num_classes=CLASSES)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_validation_does_not_depend_on_the_batch_size(size):
    task = make_task()
    alone = task.validate(Pixelwise(), draw_batches(1))
    assert task.validate(Pixelwise(), draw_batches(size)) == alone
    assert set(alone) == {"dice", "loss"}


def test_dice_is_the_mean_over_images_and_not_pooled():
    ground_truth = torch.zeros(2, 1, 4, 4, dtype=torch.int64)
    ground_truth[0, 0, 0, 0] = 1  # small and missed
    ground_truth[1, 0] = 1  # large and found
    found = ground_truth.clone()
    found[0] = 0
    assert dice_by_image(found, ground_truth, num_classes=2).tolist() == [0.0, 1.0]


def test_absent_class_scores_one_and_a_false_positive_zero():
    ground_truth = torch.zeros(2, 1, 4, 4, dtype=torch.int64)
    found = ground_truth.clone()
    found[1, 0, 0, 0] = 2
    assert dice_by_image(found, ground_truth, num_classes=3).tolist() == [1.0, 0.5]


def test_dice_equals_its_formula():
    ground_truth = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    ground_truth[..., :2] = 1
    found = torch.zeros_like(ground_truth)
    found[..., 1:4] = 1
    assert dice_by_image(found, ground_truth, num_classes=2).item() == 2 * 4 / (8 + 12)


def test_total_equals_the_loss_and_has_a_gradient():
    model = nn.Conv2d(CLASSES, CLASSES, 1)
    batch = next(iter(draw_batches(4)))
    terms = make_task("ce").loss(model, batch)
    terms["total"].backward()
    assert model.weight.grad is not None
    assert model.weight.grad.abs().sum() > 0
    expected = nn.functional.cross_entropy(model(batch["image"]), batch["mask"][:, 0])
    torch.testing.assert_close(terms["total"], expected)


def test_validation_without_cases_is_rejected():
    with pytest.raises(UsageError, match="no case for validation"):
        make_task().validate(Pixelwise(), [])


def test_validation_with_a_monai_inferer_has_exactly_the_same_scores():
    """Use `SimpleInferer`, which calls the network once per batch."""
    inferer = build_inferer(PredictConfig(mode="resize"), (8, 8))
    loss = build_loss("dice_ce", num_classes=CLASSES)
    task = SegmentationTask(loss, num_classes=CLASSES, inferer=inferer)
    expected = make_task().validate(Pixelwise(), draw_batches(3))
    assert task.validate(Pixelwise(), draw_batches(3)) == expected

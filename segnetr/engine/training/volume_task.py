"""Segmentation of volumes by slices: trained slice by slice, judged volume by volume."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from segnetr.data.case import Batch, Case
from segnetr.data.readers.image_file import ClassValues
from segnetr.data.readers.read_files import read_ground_truth, read_image
from segnetr.engine.inference.predictor import Predictor
from segnetr.engine.training.tasks import SegmentationTask, dice_by_image
from segnetr.errors import ReadError, UsageError


class VolumeTask(SegmentationTask):
    """Segmentation of volumes whose slices are the training samples.

    The validation Dice is taken for each volume on the grid of its file, as `segnetr evaluate` does
    it, averaged over the foreground classes and then over the volumes.

    Args:
        loss: Of a batch of slices.
        num_classes: K, background included.
        open_predictor: Makes a network into a predictor of whole files.
    """

    def __init__(
        self,
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        num_classes: int,
        open_predictor: Callable[[nn.Module], Predictor],
    ) -> None:
        super().__init__(loss, num_classes=num_classes)
        self._open_predictor = open_predictor

    @torch.no_grad()
    def validate(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Give the mean "dice" over all volumes.

        Raises:
            UsageError: If there is no volume.
        """
        predictor = self._open_predictor(model)
        dice = []
        for batch in batches:
            found = torch.from_numpy(predictor.predict(batch["volume"]).labels.copy())
            ground_truth = torch.from_numpy(batch["ground_truth"].copy())
            # A volume is one long image: (1, 1, X, Y * Z).
            pair = (found.flatten(1)[None, None], ground_truth.flatten(1)[None, None])
            dice.append(float(dice_by_image(*pair, num_classes=self._num_classes)))
        if not dice:
            raise UsageError("no case for validation; raise data.validation_share or add cases")
        return {"dice": sum(dice) / len(dice)}


def load_volumes(
    cases: Sequence[Case],
    *,
    channels: int,
    classes: int,
    values: ClassValues | None = None,
    max_pixels: int,
) -> Iterator[Batch]:
    """Read whole volumes from their files, one batch each, for validation.

    Not from the cache, whose copies have lost the grid that scores are taken on.

    Args:
        cases: Each with a mask.
        channels: Values for each voxel.
        classes: Number of classes K, background included.
        values: As in `read_mask_file`.
        max_pixels: As in `read_image`.

    Raises:
        ReadError: If a file cannot be read any more.
    """
    for case in cases:
        if case.mask is None:
            raise ReadError(case.image, "it has no mask to validate with")
        yield Batch(
            image=torch.empty(0, 1, 1, 1),
            case_id=[case.case_id],
            volume=read_image(case.image, volume_channels=channels, max_pixels=max_pixels),
            ground_truth=read_ground_truth(
                case.mask_files, classes=classes, values=values, max_pixels=max_pixels
            ).array,
        )

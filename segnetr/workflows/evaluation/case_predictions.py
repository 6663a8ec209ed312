"""Predict the cases of a dataset from their files and pair them with their ground truth.

A NIfTI volume stays on the disk and probabilities are counted as they are computed, so that memory
holds only the labels of a case and of its ground truth, for any depth and number of classes.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from segnetr.data.case import Case, DatasetSpec
from segnetr.data.readers.image_file import ImageFile, MaskFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.data.validation.ground_truth import read_case_ground_truth
from segnetr.engine.evaluation.pairing import MaskPair, Unscored
from segnetr.engine.inference.predictor import Prediction, Predictor
from segnetr.errors import ReadError
from segnetr.outputs.models.model_file import ModelCard
from segnetr.workflows.evaluation.evaluation_record import CalibrationCollector, EvaluationRecord
from segnetr.workflows.prediction.mask_writer import MaskWriter
from segnetr.workflows.prediction.model_folder import open_model_input
from segnetr.workflows.prediction.model_quality import out_of_fold_quality


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CasePredictor:
    """A model and everything needed to predict the cases of a dataset.

    Attributes:
        predictor: The networks.
        card: Card of the model.
        spec: How masks of the dataset are read.
        max_pixels: Size limit for reading.
        own: Whether the model was trained on this dataset.
    """

    predictor: Predictor
    card: ModelCard
    spec: DatasetSpec
    max_pixels: int
    own: bool = False

    def open(self, case: Case) -> tuple[ImageFile | VolumeFile, MaskFile]:
        """Open the image and the ground truth of a case.

        Raises:
            ReadError: If one of them cannot be read or is invalid.
        """
        image = open_model_input(self.card, case.image, max_pixels=self.max_pixels)
        return image, self._read_ground_truth(case, image.grid)

    def pairs(
        self,
        cases: Sequence[Case],
        *,
        log: EvaluationRecord,
        unread: list[Unscored],
        keep: MaskWriter | None = None,
        advance: Callable[[int, int], None],
    ) -> Iterator[MaskPair]:
        """Yield the prediction and the ground truth of each case, one at a time.

        Args:
            cases: Cases with masks.
            log: Receives a record of each case.
            unread: Receives the cases that cannot be read.
            keep: Writes the masks, if given.
            advance: Called with the number of finished cases and the total.
        """
        for number, case in enumerate(cases, start=1):
            try:
                image, ground_truth, prediction = self._predict(case, log)
            except ReadError as error:
                unread.append(Unscored(case_id=case.case_id, reason=str(error)))
            else:
                if keep is not None:
                    keep.write(case, image, prediction)
                yield MaskPair(
                    case_id=case.case_id,
                    prediction=prediction.labels,
                    ground_truth=ground_truth,
                    spacing=image.spacing,
                )
            advance(number, len(cases))

    def _predict(
        self, case: Case, log: EvaluationRecord
    ) -> tuple[ImageFile | VolumeFile, MaskFile, Prediction]:
        start = time.perf_counter()
        image = open_model_input(self.card, case.image, max_pixels=self.max_pixels)
        seconds = time.perf_counter() - start
        ground_truth = self._read_ground_truth(case, image.grid)
        fits = ground_truth.array.shape == image.grid
        collector = CalibrationCollector(ground_truth.array) if fits else None
        start = time.perf_counter()
        prediction = self.predictor.predict(image, callback=collector)
        seconds += time.perf_counter() - start
        quality = prediction.quality
        if self.own:
            quality = out_of_fold_quality(self.predictor, case, prediction)
        log.add(case, image, seconds=seconds, collector=collector, quality=quality)
        return image, ground_truth, prediction

    def _read_ground_truth(self, case: Case, grid: tuple[int, ...]) -> MaskFile:
        # A ground truth on the grid of an accepted image is accepted as well.
        most = max(self.max_pixels, math.prod(grid))
        return read_case_ground_truth(case, self.spec, max_pixels=most)

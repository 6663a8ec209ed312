"""Cases of a data set predicted from their files, one after the other, beside their ground truth.

A NIfTI volume stays on the disk, and probabilities are counted as they go by: of a case only its
labels and those of its ground truth are held, whatever its depth and its classes.
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
from segnetr.workflows.prediction.model_folder import open_image
from segnetr.workflows.prediction.model_quality import load_cached_quality


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CasePredictor:
    """A model with all it takes to predict a case of a data set.

    Attributes:
        predictor: The network.
        card: Its card.
        spec: How masks of the data set are read.
        max_pixels: As in reading.
        own: Whether the cases are of the data set that was trained on.
    """

    predictor: Predictor
    card: ModelCard
    spec: DatasetSpec
    max_pixels: int
    own: bool = False

    def open(self, case: Case) -> tuple[ImageFile | VolumeFile, MaskFile]:
        """Open image and ground truth of a case.

        Raises:
            ReadError: If one of them cannot be read or trusted.
        """
        image = open_image(self.card, case.image, max_pixels=self.max_pixels)
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
        """Give prediction and ground truth of each case, one at a time.

        Args:
            cases: With masks.
            log: Takes in what is known of each.
            unread: Takes in those that cannot be read.
            keep: Where masks are kept, if anywhere.
            advance: Called with the cases that are done and all there are.
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
        image = open_image(self.card, case.image, max_pixels=self.max_pixels)
        seconds = time.perf_counter() - start
        ground_truth = self._read_ground_truth(case, image.grid)
        fits = ground_truth.array.shape == image.grid
        watch = CalibrationCollector(ground_truth.array) if fits else None
        start = time.perf_counter()
        prediction = self.predictor.predict(image, watch=watch)
        seconds += time.perf_counter() - start
        quality = prediction.quality
        if self.own:
            quality = load_cached_quality(self.predictor, case, prediction)
        log.add(case, image, seconds=seconds, watch=watch, quality=quality)
        return image, ground_truth, prediction

    def _read_ground_truth(self, case: Case, grid: tuple[int, ...]) -> MaskFile:
        # Where an image is let in, so is a ground truth on its grid.
        most = max(self.max_pixels, math.prod(grid))
        return read_case_ground_truth(case, self.spec, max_pixels=most)

"""Cases of a data set predicted from their files, one after the other, beside their truth.

A NIfTI volume stays on the disk, and probabilities are counted as they go by: of a case only its
labels and those of its truth are held, whatever its depth and its classes.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from segnetr.data.case import Case, DatasetSpec
from segnetr.data.readers.image_file import ImageFile, MaskFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.data.validation.ground_truth import read_case_truth
from segnetr.engine.evaluation.pairing import MaskPair, Unscored
from segnetr.engine.inference.predictor import Prediction, Predictor
from segnetr.errors import ReadError
from segnetr.outputs.models.model_file import ModelCard
from segnetr.workflows.evaluation.evaluation_record import CaseLog, CaseWatch
from segnetr.workflows.prediction.mask_writer import MaskFolder
from segnetr.workflows.prediction.model_folder import open_image
from segnetr.workflows.prediction.model_quality import recall_quality


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
        """Open image and truth of a case.

        Raises:
            ReadError: If one of them cannot be read or trusted.
        """
        image = open_image(self.card, case.image, max_pixels=self.max_pixels)
        return image, self._read_truth(case, image.grid)

    def pairs(
        self,
        cases: Sequence[Case],
        *,
        log: CaseLog,
        unread: list[Unscored],
        keep: MaskFolder | None = None,
        advance: Callable[[int, int], None],
    ) -> Iterator[MaskPair]:
        """Give prediction and truth of each case, one at a time.

        Args:
            cases: With masks.
            log: Takes in what is known of each.
            unread: Takes in those that cannot be read.
            keep: Where masks are kept, if anywhere.
            advance: Called with the cases that are done and all there are.
        """
        for number, case in enumerate(cases, start=1):
            try:
                image, truth, prediction = self._predict(case, log)
            except ReadError as error:
                unread.append(Unscored(case_id=case.case_id, reason=str(error)))
            else:
                if keep is not None:
                    keep.write(case, image, prediction)
                yield MaskPair(
                    case_id=case.case_id,
                    prediction=prediction.labels,
                    truth=truth,
                    spacing=image.spacing,
                )
            advance(number, len(cases))

    def _predict(
        self, case: Case, log: CaseLog
    ) -> tuple[ImageFile | VolumeFile, MaskFile, Prediction]:
        start = time.perf_counter()
        image = open_image(self.card, case.image, max_pixels=self.max_pixels)
        seconds = time.perf_counter() - start
        truth = self._read_truth(case, image.grid)
        fits = truth.array.shape == image.grid
        watch = CaseWatch(truth.array) if fits else None
        start = time.perf_counter()
        prediction = self.predictor.predict(image, watch=watch)
        seconds += time.perf_counter() - start
        quality = prediction.quality
        if self.own:
            quality = recall_quality(self.predictor, case, prediction)
        log.add(case, image, seconds=seconds, watch=watch, quality=quality)
        return image, truth, prediction

    def _read_truth(self, case: Case, grid: tuple[int, ...]) -> MaskFile:
        # Where an image is let in, so is a truth on its grid.
        most = max(self.max_pixels, math.prod(grid))
        return read_case_truth(case, self.spec, max_pixels=most)

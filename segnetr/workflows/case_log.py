"""What is noted of each case while it is scored, beside the scores themselves."""

import math
from collections.abc import Sequence
from pathlib import Path

from segnetr.data.case import Case
from segnetr.data.readers import ImageFile, MaskFile
from segnetr.engine.predictor import Prediction
from segnetr.engine.quality import Quality
from segnetr.metrics import Score
from segnetr.metrics.pixel_calibration import PixelCounter
from segnetr.outputs import case_records, reliability_file
from segnetr.outputs.case_records import CaseRecord
from segnetr.outputs.size_tables import write_sizes

# Probabilities of a case are looked at where they take no more memory than this.
_MOST_PROBABILITY_BYTES = 1 << 30


class CaseLog:
    """Collects facts, times and the calibration of the cases of one evaluation.

    Attributes:
        believed: What was believed about the mask of each case; empty where the model says nothing.
    """

    def __init__(self) -> None:
        self._records: list[CaseRecord] = []
        self.believed: dict[str, Quality] = {}
        self._pixels = PixelCounter()

    @staticmethod
    def wants_probabilities(image: ImageFile, classes: int) -> bool:
        """Whether a case is small enough for its probabilities to be kept."""
        return 4 * classes * math.prod(image.grid) <= _MOST_PROBABILITY_BYTES

    def add(
        self,
        case: Case,
        image: ImageFile,
        prediction: Prediction,
        truth: MaskFile,
        *,
        seconds: float,
        quality: Quality | None = None,
    ) -> None:
        """Note one case.

        Args:
            case: The case.
            image: Its image, as read.
            prediction: On its grid.
            truth: Its mask; on another grid it is not compared with probabilities.
            seconds: Time that reading and predicting took.
            quality: What was believed about the mask.
        """
        if quality is not None:
            self.believed[case.case_id] = quality
        self._records.append(
            CaseRecord(
                case_id=case.case_id,
                patient_id=case.patient_id,
                grid=image.grid,
                spacing=image.spacing,
                seconds=round(seconds, 4),
                facts=case.extra,
                quality=quality,
            )
        )
        probabilities = prediction.probabilities
        if probabilities is not None and truth.array.shape == image.grid:
            self._pixels.add(probabilities, truth.array)

    def write(self, folder: Path, scores: Sequence[Score]) -> None:
        """Write `cases.json`, `sizes.csv`, and what else the cases tell.

        That is `reliability.json` where probabilities were looked at, `ejection.csv` of hearts.

        Args:
            folder: The evaluation's.
            scores: Of the cases.

        Raises:
            WriteError: If a file cannot be written.
        """
        case_records.write_case_records(folder / case_records.NAME, self._records)
        write_sizes(folder, scores, self._records)
        reliability = self._pixels.result()
        if reliability is not None:
            reliability_file.write_reliability(folder / reliability_file.NAME, reliability)

"""What is noted of each case while it is scored, beside the scores themselves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnetr.data.case import Case
from segnetr.data.files.volume_file import VolumeFile
from segnetr.data.readers import ImageFile
from segnetr.engine.predictor import Place
from segnetr.metrics import Score
from segnetr.metrics.pixel_calibration import CasePixels, PixelCounter
from segnetr.outputs import case_records, reliability_file
from segnetr.outputs.case_records import CaseRecord
from segnetr.outputs.size_tables import write_sizes


class CaseWatch:
    """Counts the probabilities of one case as they go by, so that none of them has to be kept.

    Args:
        truth: Class indices on the grid of the case.
    """

    def __init__(self, truth: NDArray[np.uint8]) -> None:
        self._truth = truth
        self.pixels = CasePixels(truth.size)

    def __call__(self, place: Place, index: int, probability: NDArray[np.float32]) -> None:
        """Count a part of a class; see `segnetr.engine.predictor.Watch`."""
        self.pixels.add(index, probability, place.cut(self._truth), start=place.start)


class CaseLog:
    """Collects facts, times and the calibration of the cases of one evaluation."""

    def __init__(self) -> None:
        self._records: list[CaseRecord] = []
        self._pixels = PixelCounter()

    def add(
        self,
        case: Case,
        image: ImageFile | VolumeFile,
        *,
        seconds: float,
        watch: CaseWatch | None = None,
    ) -> None:
        """Note one case.

        Args:
            case: The case.
            image: Its image, as read.
            seconds: Time that reading and predicting took.
            watch: What it saw of the case; None where the truth lies on another grid.
        """
        self._records.append(
            CaseRecord(
                case_id=case.case_id,
                patient_id=case.patient_id,
                grid=image.grid,
                spacing=image.spacing,
                seconds=round(seconds, 4),
                facts=case.extra,
            )
        )
        if watch is not None:
            self._pixels.add(watch.pixels)

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

"""What is noted of each case while it is scored, and all files that an evaluation leaves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.segmentation import EvaluateConfig
from segnetr.data.case import Case
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.engine.evaluation.evaluator import Evaluation
from segnetr.engine.inference.region import Place
from segnetr.engine.quality.estimator import Quality
from segnetr.metrics.pixel_calibration import CasePixels, PixelCounter, PixelReliability
from segnetr.outputs.tables import case_records
from segnetr.outputs.tables import reliability as reliability_file
from segnetr.outputs.tables.case_records import CaseRecord
from segnetr.outputs.tables.scores import write_per_case_csv, write_summary_json
from segnetr.outputs.tables.structure_sizes import write_sizes
from segnetr.storage.disk_errors import as_write_error


class CalibrationCollector:
    """Counts the probabilities of one case as they go by, so that none of them has to be kept.

    Args:
        ground_truth: Class indices on the grid of the case.
    """

    def __init__(self, ground_truth: NDArray[np.uint8]) -> None:
        self._ground_truth = ground_truth
        self.pixels = CasePixels(ground_truth.size)

    def __call__(self, place: Place, index: int, probability: NDArray[np.float32]) -> None:
        """Count a part of a class; see `segnetr.engine.inference.region.ProbabilityCallback`."""
        self.pixels.add(index, probability, place.cut(self._ground_truth), start=place.start)


class EvaluationRecord:
    """Collects facts, times and the calibration of the cases of one evaluation.

    Attributes:
        believed: What was believed about the mask of each case; empty where the model says nothing.
    """

    def __init__(self) -> None:
        self._records: list[CaseRecord] = []
        self.believed: dict[str, Quality] = {}
        self._pixels = PixelCounter()

    def add(
        self,
        case: Case,
        image: ImageFile | VolumeFile,
        *,
        seconds: float,
        watch: CalibrationCollector | None = None,
        quality: Quality | None = None,
    ) -> None:
        """Note one case.

        Args:
            case: The case.
            image: Its image, as read.
            seconds: Time that reading and predicting took.
            watch: What it saw of the case; None where the ground truth lies on another grid.
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
        if watch is not None:
            self._pixels.add(watch.pixels)

    @property
    def records(self) -> tuple[CaseRecord, ...]:
        """What was noted of the cases, in the order they came."""
        return tuple(self._records)

    def reliability(self) -> PixelReliability | None:
        """Give the calibration of all pixels that were watched."""
        return self._pixels.result()


def write_evaluation(
    folder: Path,
    evaluation: Evaluation,
    *,
    title: str,
    config: EvaluateConfig,
    tta: str = "",
    records: Sequence[CaseRecord] = (),
    reliability: PixelReliability | None = None,
) -> None:
    """Write all files of an evaluation but its images.

    That is `per_case.csv` and `summary.json`; with records `cases.json`, `sizes.csv`, and of hearts
    `ejection.csv`; and `reliability.json` where probabilities were watched.

    Args:
        folder: Where to; made if it is not there.
        evaluation: The scores.
        title: What was scored, for people.
        config: How it was scored.
        tta: As in `write_summary_json`.
        records: What is known of the cases.
        reliability: Calibration of the pixels.

    Raises:
        WriteError: If a file cannot be written.
    """
    with as_write_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_per_case_csv(folder / "per_case.csv", evaluation.scores)
    write_summary_json(folder / "summary.json", evaluation, title=title, config=config, tta=tta)
    if records:
        case_records.write_case_records(folder / case_records.NAME, records)
        write_sizes(folder, evaluation.scores, records)
    if reliability is not None:
        reliability_file.write_reliability(folder / reliability_file.NAME, reliability)

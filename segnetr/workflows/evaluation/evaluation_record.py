"""Record each case while it is scored, and write all files of an evaluation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.segmentation import EvaluateConfig
from segnetr.data.case import Case
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.engine.evaluation.evaluator import Evaluation
from segnetr.engine.inference.accumulator import Region
from segnetr.engine.inference.predictor import Quality
from segnetr.metrics.pixel_calibration import CasePixels, PixelCounter, PixelReliability
from segnetr.outputs.tables import case_records
from segnetr.outputs.tables import reliability as reliability_file
from segnetr.outputs.tables.case_records import CaseRecord
from segnetr.outputs.tables.scores import write_per_case_csv, write_summary_json
from segnetr.outputs.tables.structure_sizes import write_sizes
from segnetr.storage.disk_errors import as_write_error


class CalibrationCollector:
    """Counts the probabilities of one case as they are computed, so that none has to be kept.

    Args:
        ground_truth: Class indices on the grid of the case.
    """

    def __init__(self, ground_truth: NDArray[np.uint8]) -> None:
        self._ground_truth = ground_truth
        self.pixels = CasePixels(ground_truth.size)

    def __call__(self, region: Region, index: int, probability: NDArray[np.float32]) -> None:
        """Count a region of a class; see `segnetr.engine.inference.accumulator`."""
        self.pixels.add(index, probability, region.cut(self._ground_truth), start=region.start)


class EvaluationRecord:
    """Collects metadata, times and the calibration of the cases of one evaluation.

    Attributes:
        predicted_quality: Predicted quality of the mask of each case. Empty if the model cannot
            estimate it.
    """

    def __init__(self) -> None:
        self._records: list[CaseRecord] = []
        self.predicted_quality: dict[str, Quality] = {}
        self._pixels = PixelCounter()

    def add(
        self,
        case: Case,
        image: ImageFile | VolumeFile,
        *,
        seconds: float,
        collector: CalibrationCollector | None = None,
        quality: Quality | None = None,
    ) -> None:
        """Record one case.

        Args:
            case: The case.
            image: Its image, as read.
            seconds: Duration of reading and prediction.
            collector: Its calibration. None if the ground truth is on another grid.
            quality: Predicted quality of the mask.
        """
        if quality is not None:
            self.predicted_quality[case.case_id] = quality
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
        if collector is not None:
            self._pixels.add(collector.pixels)

    @property
    def records(self) -> tuple[CaseRecord, ...]:
        """The records in the order of the cases."""
        return tuple(self._records)

    def reliability(self) -> PixelReliability | None:
        """Return the calibration of all counted pixels."""
        return self._pixels.result()


def write_evaluation(
    folder: Path,
    evaluation: Evaluation,
    *,
    title: str,
    config: EvaluateConfig,
    tta: str = "",
    seen: int = 0,
    records: Sequence[CaseRecord] = (),
    reliability: PixelReliability | None = None,
) -> None:
    """Write all files of an evaluation except its images.

    These are `per_case.csv` and `summary.json`; with records also `cases.json`, `sizes.csv` and,
    for hearts, `ejection.csv`; and with probabilities `reliability.json`.

    Args:
        folder: Output folder. Created if missing.
        evaluation: The scores.
        title: Name of the scored dataset, for users.
        config: Scoring settings.
        tta: As in `write_summary_json`.
        seen: As in `write_summary_json`.
        records: Records of the cases.
        reliability: Calibration of the pixels.

    Raises:
        WriteError: If a file cannot be written.
    """
    with as_write_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_per_case_csv(folder / "per_case.csv", evaluation.scores)
    write_summary_json(
        folder / "summary.json", evaluation, title=title, config=config, tta=tta, seen=seen
    )
    if records:
        case_records.write_case_records(folder / case_records.CASES_NAME, records)
        write_sizes(folder, evaluation.scores, records)
    if reliability is not None:
        reliability_file.write_reliability(folder / reliability_file.RELIABILITY_NAME, reliability)

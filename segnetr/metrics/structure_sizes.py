"""Sizes of structures in the ground truth and the prediction, and their agreement."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segnetr.metrics.score import GROUND_TRUTH_PIXELS, PREDICTED_PIXELS, Score

_LIMITS = 1.96  # standard deviations


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The size of one structure of one case.

    Attributes:
        case_id: The case.
        class_name: The foreground class.
        true: Size in the ground truth.
        predicted: Size in the prediction.
        whole: Size of the whole image.
        unit: "ml" for a volume, "mm2" for an image with spacing, "px" for one without.
    """

    case_id: str
    class_name: str
    true: float
    predicted: float
    whole: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ejection:
    """Volumes of a heart chamber at end-diastole (ED) and end-systole (ES), in ml.

    Attributes:
        patient_id: The patient.
        class_name: The chamber.
        true_ed: End-diastolic volume in the ground truth.
        true_es: End-systolic volume in the ground truth.
        predicted_ed: Predicted end-diastolic volume.
        predicted_es: Predicted end-systolic volume.
    """

    patient_id: str
    class_name: str
    true_ed: float
    true_es: float
    predicted_ed: float
    predicted_es: float

    @property
    def true_fraction(self) -> float | None:
        """Ejection fraction of the ground truth in percent; None if the ED volume is 0."""
        return _fraction(self.true_ed, self.true_es)

    @property
    def predicted_fraction(self) -> float | None:
        """Predicted ejection fraction in percent; None if the ED volume is 0."""
        return _fraction(self.predicted_ed, self.predicted_es)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Bland-Altman agreement of predicted and true measurements.

    Attributes:
        bias: Mean of predicted minus true.
        low: Lower limit of agreement, bias - 1.96 standard deviations. None: fewer than two pairs.
        high: Upper limit of agreement, bias + 1.96 standard deviations.
        pairs: Number of pairs.
    """

    bias: float
    low: float | None
    high: float | None
    pairs: int


def measure_sizes(
    scores: Iterable[Score],
    *,
    grids: Mapping[str, tuple[int, ...]],
    spacings: Mapping[str, tuple[float, ...] | None],
) -> list[Size]:
    """Return the sizes of all structures, from the pixel counts stored with the scores.

    Args:
        scores: Scores of any number of cases.
        grids: Pixels along each axis by case id. Cases without an entry are skipped.
        spacings: Size of a pixel in mm along each axis by case id. Volumes without spacing are
            skipped.
    """
    counts: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for score in scores:
        if score.metric in (GROUND_TRUTH_PIXELS, PREDICTED_PIXELS):
            counts[score.case_id, score.class_name][score.metric] = score.value or 0.0
    sizes = []
    for (case_id, class_name), found in counts.items():
        grid, spacing = grids.get(case_id), spacings.get(case_id)
        if grid is None or (len(grid) == 3 and spacing is None):
            continue
        factor, unit = _unit_of(grid, spacing)
        sizes.append(
            Size(
                case_id=case_id,
                class_name=class_name,
                true=factor * found[GROUND_TRUTH_PIXELS],
                predicted=factor * found[PREDICTED_PIXELS],
                whole=factor * math.prod(grid),
                unit=unit,
            )
        )
    return sizes


def measure_ejections(
    sizes: Iterable[Size], *, patients: Mapping[str, str], phases: Mapping[str, str]
) -> list[Ejection]:
    """Return the volumes of the ventricular cavities at both phases for each patient.

    Args:
        sizes: Sizes of structures. Only classes whose name contains "ventricle" are used.
        patients: Patient by case id.
        phases: "ED" or "ES" by case id.

    Returns:
        One entry for each patient and ventricle with both phases.

    Source:
        Bernard et al., IEEE TMI 37(11), 2018: clinical metrics of ACDC.
    """
    found: dict[tuple[str, str], dict[str, Size]] = defaultdict(dict)
    for size in sizes:
        phase, patient = phases.get(size.case_id), patients.get(size.case_id)
        if "ventricle" in size.class_name and phase in ("ED", "ES") and patient is not None:
            found[patient, size.class_name][phase] = size
    return [
        Ejection(
            patient_id=patient,
            class_name=class_name,
            true_ed=both["ED"].true,
            true_es=both["ES"].true,
            predicted_ed=both["ED"].predicted,
            predicted_es=both["ES"].predicted,
        )
        for (patient, class_name), both in sorted(found.items())
        if len(both) == 2
    ]


def measure_agreement(true: Sequence[float], predicted: Sequence[float]) -> Agreement:
    """Return bias and limits of agreement of paired measurements.

    Raises:
        ValueError: If there are no measurements, or the lengths differ.

    Source:
        Bland and Altman, Statistical methods for assessing agreement between two methods of
        clinical measurement, Lancet 327(8476), 1986.
    """
    if not true or len(true) != len(predicted):
        raise ValueError(f"{len(true)} and {len(predicted)} measurements are no pairs")
    gaps = np.subtract(predicted, true)
    bias = float(gaps.mean())
    if len(gaps) < 2:
        return Agreement(bias=bias, low=None, high=None, pairs=1)
    reach = _LIMITS * float(gaps.std(ddof=1))
    return Agreement(bias=bias, low=bias - reach, high=bias + reach, pairs=len(gaps))


def _unit_of(grid: tuple[int, ...], spacing: tuple[float, ...] | None) -> tuple[float, str]:
    if spacing is None:
        return 1.0, "px"
    side = math.prod(spacing)
    return (side / 1000, "ml") if len(grid) == 3 else (side, "mm2")


def _fraction(diastole: float, systole: float) -> float | None:
    return 100 * (diastole - systole) / diastole if diastole > 0 else None

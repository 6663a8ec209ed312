"""Fit a quality model at the end of a training.

Temperature, regression and intervals are fitted on validation cases only. The training set
describes in-distribution images and says nothing about the quality of masks. Limits come from the
distances of validation cases. The limit of the intensity statistics, which do not depend on the
network, also uses left-out training cases, so that few cases give a sharper limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segnetr.engine.quality.conformal import choose_level, find_radius
from segnetr.engine.quality.dice_regression import fit_dice_regression
from segnetr.engine.quality.estimator import (
    CalibrationCase,
    OODDetector,
    QualityModel,
    find_spacing_gap,
    find_width,
)
from segnetr.engine.quality.feature_collector import ImageFeatures
from segnetr.engine.quality.ood import find_limit, fit_detector, measure_left_out
from segnetr.engine.quality.probability_features import FEATURES, VIEWS_FEATURE
from segnetr.engine.quality.temperature import fit_temperature

MIN_CASES = 5
"""Validation patients, and training cases, below which nothing is fitted."""

_MAX_PIXELS = 20_000
_MIN_SPACING_FACTOR = 1.25


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownCase:
    """A validation case with known Dice.

    Attributes:
        case_id: Id of the case.
        group: Its patient, or the case itself if it has no patient.
        features: Features of the case.
        dice: Dice of its mask.
    """

    case_id: str
    group: str
    features: ImageFeatures
    dice: float


class TemperatureFit:
    """Collects pixels of validation cases. Each case has the same weight."""

    def __init__(self) -> None:
        self._probabilities: list[NDArray[np.float32]] = []
        self._ground_truth: list[NDArray[np.uint8]] = []

    def add(self, probabilities: NDArray[np.float32], ground_truth: NDArray[np.uint8]) -> None:
        """Add a case. A large case is subsampled.

        Args:
            probabilities: (K, ...) of each class, background first.
            ground_truth: Class indices (...) on the same grid.
        """
        stride = -(-ground_truth.size // _MAX_PIXELS)
        flat = probabilities.reshape(len(probabilities), -1)
        self._probabilities.append(flat[:, ::stride].T.copy())
        self._ground_truth.append(ground_truth.reshape(-1)[::stride].copy())

    def result(self) -> float:
        """Return the temperature; 1, which has no effect, if no case was added."""
        if not self._ground_truth:
            return 1.0
        weights = [np.full(len(each), 1 / len(each)) for each in self._ground_truth]
        return fit_temperature(
            np.concatenate(self._probabilities),
            np.concatenate(self._ground_truth),
            weights=np.concatenate(weights),
        )


def fit_quality_model(
    training: Sequence[ImageFeatures],
    validation: Sequence[KnownCase],
    *,
    level: str,
    temperature: float,
    views: int,
    training_groups: Sequence[str] | None = None,
) -> QualityModel:
    """Fit everything but the temperature, which the features already depend on.

    Args:
        training: Training cases.
        validation: Validation cases of at least `MIN_CASES` patients.
        level: The network's deepest level.
        temperature: Applied to the probabilities.
        views: Number of test-time augmentations.
        training_groups: Patient of each training case. None: each case is its own patient.

    Raises:
        ValueError: If there are too few cases.
    """
    groups = [case.group for case in validation]
    interval_level = choose_level(len(set(groups)))
    if interval_level is None:
        raise ValueError(f"{len(set(groups))} validation patients are too few for an interval")
    names = (*FEATURES, VIEWS_FEATURE) if views > 1 else FEATURES
    rows = np.array([[case.features.features[name] for name in names] for case in validation])
    dice = np.array([case.dice for case in validation])
    regression, left_out = fit_dice_regression(rows, dice, groups=groups)
    errors = [
        abs(true - predicted) / find_width(predicted)
        for true, predicted in zip(dice.tolist(), left_out.tolist(), strict=True)
    ]
    return QualityModel(
        level=level,
        temperature=temperature,
        features=names,
        regression=regression,
        interval_level=interval_level,
        radius=find_radius(_worst_by_group(errors, groups), interval_level),
        ood_detector=_fit_ood_detector(
            training,
            [case.features for case in validation],
            groups=training_groups or [str(number) for number in range(len(training))],
        ),
        cases=tuple(
            CalibrationCase(case_id=case.case_id, dice=case.dice, predicted=float(predicted))
            for case, predicted in zip(validation, left_out, strict=True)
        ),
    )


def _worst_by_group(errors: Sequence[float], groups: Sequence[str]) -> list[float]:
    """Return the largest error of each patient: cases of one patient are not independent."""
    worst: dict[str, float] = {}
    for group, error in zip(groups, errors, strict=True):
        worst[group] = max(worst.get(group, 0.0), error)
    return list(worst.values())


def _fit_ood_detector(
    training: Sequence[ImageFeatures], validation: Sequence[ImageFeatures], *, groups: Sequence[str]
) -> OODDetector:
    """Describe the training set and the distances of cases like it."""
    intensity = np.array([each.intensity for each in training])
    embedding = np.array([each.embedding for each in training])
    densities = {"intensity": fit_detector(intensity), "embedding": fit_detector(embedding)}
    held_out = {
        "intensity": densities["intensity"].measure(np.array([v.intensity for v in validation])),
        "embedding": densities["embedding"].measure(np.array([v.embedding for v in validation])),
    }
    left_out = measure_left_out(intensity, groups=groups)
    limits = {
        "intensity": find_limit([*held_out["intensity"].tolist(), *left_out]),
        "embedding": find_limit(held_out["embedding"].tolist()),
    }
    ranges = _spacing_ranges(training)
    factor = _MIN_SPACING_FACTOR
    if ranges is not None:
        gaps = [find_spacing_gap(each.spacing, ranges) for each in validation if each.spacing]
        factor = max([factor, *gaps])
    return OODDetector(
        kind=training[0].kind,
        spacing=ranges,
        spacing_factor=factor,
        densities=densities,
        limits=limits,
    )


def _spacing_ranges(training: Sequence[ImageFeatures]) -> tuple[tuple[float, float], ...] | None:
    known = [each.spacing for each in training if each.spacing is not None]
    if len(known) < len(training):
        return None
    table = np.array(known)
    return tuple(zip(table.min(axis=0).tolist(), table.max(axis=0).tolist(), strict=True))

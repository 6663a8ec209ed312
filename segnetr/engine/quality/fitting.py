"""Fits at the end of a training what says how good a mask probably is.

Temperature, regression and intervals come from validation cases alone; the training set gives what
images of its kind are like, and nothing about how good masks are. Limits are distances of
validation cases; of intensity, on which the network has no influence, also those of training cases
left out in turn, so that few cases give a sharper limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segnetr.engine.quality.conformal import choose_level, find_radius
from segnetr.engine.quality.dice_regression import fit_dice_regression
from segnetr.engine.quality.estimator import (
    CalibrationCase,
    Familiarity,
    QualityModel,
    find_spacing_gap,
    find_width,
)
from segnetr.engine.quality.feature_collector import ImageFeatures
from segnetr.engine.quality.ood import find_limit, fit_cloud, measure_left_out
from segnetr.engine.quality.probability_features import FEATURES, VIEWS_FEATURE
from segnetr.engine.quality.temperature import fit_temperature

FEWEST = 5
"""Validation patients, and training cases, below which nothing is fitted."""

_MOST_PIXELS = 20_000
_LEAST_SPACING_FACTOR = 1.25


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KnownCase:
    """A validation case with its ground truth.

    Attributes:
        case_id: The case.
        group: Its patient, or itself where it stands alone.
        seen: As the network saw it.
        dice: Of its mask.
    """

    case_id: str
    group: str
    seen: ImageFeatures
    dice: float


class TemperatureFit:
    """Gathers pixels of validation cases; each case weighs as much as every other."""

    def __init__(self) -> None:
        self._said: list[NDArray[np.float32]] = []
        self._true: list[NDArray[np.uint8]] = []

    def add(self, probabilities: NDArray[np.float32], ground_truth: NDArray[np.uint8]) -> None:
        """Take in a case, of a large one every n-th pixel.

        Args:
            probabilities: (K, ...) of each class, background first.
            ground_truth: Class indices (...) on the same grid.
        """
        stride = -(-ground_truth.size // _MOST_PIXELS)
        flat = probabilities.reshape(len(probabilities), -1)
        self._said.append(flat[:, ::stride].T.copy())
        self._true.append(ground_truth.reshape(-1)[::stride].copy())

    def finish(self) -> float:
        """Give the temperature; 1, which changes nothing, where no case was taken in."""
        if not self._true:
            return 1.0
        weights = [np.full(len(true), 1 / len(true)) for true in self._true]
        return fit_temperature(
            np.concatenate(self._said),
            np.concatenate(self._true),
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
    """Fit everything but the temperature, which the features were made with.

    Args:
        training: Training cases.
        validation: Validation cases, of `FEWEST` patients at least.
        level: The network's deepest level.
        temperature: Of the probabilities.
        views: Ways in which the network looks at each slice.
        training_groups: Patient of each training case; None: each stands alone.

    Raises:
        ValueError: If there are too few cases.
    """
    groups = [case.group for case in validation]
    interval_level = choose_level(len(set(groups)))
    if interval_level is None:
        raise ValueError(f"{len(set(groups))} validation patients promise no interval")
    names = (*FEATURES, VIEWS_FEATURE) if views > 1 else FEATURES
    rows = np.array([[case.seen.features[name] for name in names] for case in validation])
    dice = np.array([case.dice for case in validation])
    regression, left_out = fit_dice_regression(rows, dice, groups=groups)
    errors = [
        abs(true - said) / find_width(said)
        for true, said in zip(dice.tolist(), left_out.tolist(), strict=True)
    ]
    return QualityModel(
        level=level,
        temperature=temperature,
        features=names,
        regression=regression,
        interval_level=interval_level,
        radius=find_radius(_take_worst(errors, groups), interval_level),
        familiarity=_fit_familiarity(
            training,
            [case.seen for case in validation],
            groups=training_groups or [str(number) for number in range(len(training))],
        ),
        cases=tuple(
            CalibrationCase(case_id=case.case_id, dice=case.dice, predicted=float(said))
            for case, said in zip(validation, left_out, strict=True)
        ),
    )


def _take_worst(errors: Sequence[float], groups: Sequence[str]) -> list[float]:
    """Give the largest error of each patient: cases of one patient are no independent draws."""
    worst: dict[str, float] = {}
    for group, error in zip(groups, errors, strict=True):
        worst[group] = max(worst.get(group, 0.0), error)
    return list(worst.values())


def _fit_familiarity(
    training: Sequence[ImageFeatures], validation: Sequence[ImageFeatures], *, groups: Sequence[str]
) -> Familiarity:
    """Describe the training set, and how far cases of its kind lie from it."""
    looks = np.array([seen.appearance for seen in training])
    depths = np.array([seen.embedding for seen in training])
    clouds = {"intensity": fit_cloud(looks), "embedding": fit_cloud(depths)}
    near = clouds["intensity"].measure(np.array([seen.appearance for seen in validation]))
    deep = clouds["embedding"].measure(np.array([seen.embedding for seen in validation]))
    limits = {
        "intensity": find_limit([*near.tolist(), *measure_left_out(looks, groups=groups)]),
        "embedding": find_limit(deep.tolist()),
    }
    ranges = _find_ranges(training)
    factor = _LEAST_SPACING_FACTOR
    if ranges is not None:
        gaps = [find_spacing_gap(seen.spacing, ranges) for seen in validation if seen.spacing]
        factor = max([factor, *gaps])
    return Familiarity(
        kind=training[0].kind,
        spacing=ranges,
        spacing_factor=factor,
        clouds=clouds,
        limits=limits,
    )


def _find_ranges(training: Sequence[ImageFeatures]) -> tuple[tuple[float, float], ...] | None:
    known = [seen.spacing for seen in training if seen.spacing is not None]
    if len(known) < len(training):
        return None
    table = np.array(known)
    return tuple(zip(table.min(axis=0).tolist(), table.max(axis=0).tolist(), strict=True))

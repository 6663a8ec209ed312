"""Estimate the quality of a mask and detect out-of-distribution images.

A `QualityModel` is fitted at the end of a training (`fitting.py`) and stored next to the weights.
It contains only numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segnetr.engine.inference.predictor import OODFlag, Quality
from segnetr.engine.quality.dice_regression import DiceRegression
from segnetr.engine.quality.feature_collector import FileKind, ImageFeatures
from segnetr.engine.quality.ood import MahalanobisDetector
from segnetr.engine.quality.probability_features import VIEWS_FEATURE

__all__ = [
    "CalibrationCase",
    "OODDetector",
    "Quality",
    "QualityModel",
    "combine_quality",
    "find_spacing_gap",
    "find_width",
]

_MIN_WIDTH = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationCase:
    """A validation case that the model was fitted on.

    Attributes:
        case_id: Id of the case.
        dice: Its true Dice.
        predicted: Dice predicted by a regression fitted without its patient.
    """

    case_id: str
    dice: float
    predicted: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OODDetector:
    """Describes the training set and how far a case may be from it.

    Attributes:
        kind: Images or volumes.
        spacing: Smallest and largest voxel size in mm for each axis. None: unknown.
        spacing_factor: Factor by which a voxel size may be outside that range.
        densities: Of the intensity statistics ("intensity") and of the deepest level ("embedding").
        limits: Distance above which a case is out of distribution, for each density.
    """

    kind: FileKind
    spacing: tuple[tuple[float, float], ...] | None
    spacing_factor: float
    densities: Mapping[str, MahalanobisDetector]
    limits: Mapping[str, float]

    def measure(self, features: ImageFeatures) -> dict[str, float]:
        """Return the distance from each density divided by its limit."""
        points = {"intensity": features.intensity, "embedding": features.embedding}
        return {
            name: float(density.measure(points[name][None])[0] / self.limits[name])
            for name, density in self.densities.items()
        }

    def score(self, features: ImageFeatures) -> tuple[float, tuple[str, ...]]:
        """Return the largest distance divided by its limit, and why a case is out of distribution.

        The reasons are empty for a case that is like the training set.
        """
        distances = self.measure(features)
        reasons = [
            f"{name} {ratio:.1f} times its limit" for name, ratio in distances.items() if ratio > 1
        ]
        if features.kind != self.kind:
            reasons.insert(0, f"a {features.kind}, trained on {self.kind}s")
            return max(2.0, *distances.values()), tuple(reasons)
        gap = self._spacing_gap(features.spacing)
        if gap > self.spacing_factor:
            sides = " x ".join(f"{side:.3g}" for side in features.spacing or ())
            reasons.append(f"spacing {sides} mm" if sides else "spacing not known")
        return max(gap / self.spacing_factor, *distances.values()), tuple(reasons)

    def _spacing_gap(self, spacing: tuple[float, ...] | None) -> float:
        """Return the factor by which a voxel size is outside those of the training set, 1 inside.

        An unknown spacing counts as twice the allowed factor.
        """
        if self.spacing is None:
            return 0.0
        if spacing is None or len(spacing) != len(self.spacing):
            return 2 * self.spacing_factor
        return find_spacing_gap(spacing, self.spacing)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QualityModel:
    """Everything that is fitted at the end of a training.

    Attributes:
        level: Dotted name of the network's deepest level.
        temperature: Divides the logits.
        features: Names of the features of the probability map, in the order of the regression.
        regression: From features to Dice.
        interval_level: Coverage of the interval.
        radius: Half the width of the interval, relative to `find_width`.
        ood_detector: Describes the training set.
        cases: The validation cases it was fitted on.
    """

    level: str
    temperature: float
    features: tuple[str, ...]
    regression: DiceRegression
    interval_level: float
    radius: float
    ood_detector: OODDetector
    cases: tuple[CalibrationCase, ...]

    @property
    def needs_views(self) -> bool:
        """Whether several test-time augmentations are needed."""
        return VIEWS_FEATURE in self.features

    def estimate(self, features: ImageFeatures) -> Quality:
        """Return the estimated quality of a mask."""
        row = np.array([[features.features[name] for name in self.features]])
        dice = float(self.regression.predict(row)[0])
        ood_score, reasons = self.ood_detector.score(features)
        low, high = self._interval(dice)
        return Quality(
            dice=dice,
            low=low,
            high=high,
            level=self.interval_level,
            is_ood=bool(reasons),
            ood_score=ood_score,
            reasons=reasons,
        )

    def detect(self, features: ImageFeatures) -> OODFlag:
        """Return whether a case is out of distribution, without the quality of its mask."""
        ood_score, reasons = self.ood_detector.score(features)
        return OODFlag(is_ood=bool(reasons), ood_score=ood_score, reasons=reasons)

    def out_of_fold(self, case_id: str, quality: Quality) -> Quality:
        """Return the left-out prediction for a case that was fitted on, else `quality` itself."""
        known = next((case for case in self.cases if case.case_id == case_id), None)
        if known is None:
            return quality
        low, high = self._interval(known.predicted)
        return replace(quality, dice=known.predicted, low=low, high=high)

    def _interval(self, dice: float) -> tuple[float, float]:
        half = self.radius * find_width(dice)
        return max(0.0, dice - half), min(1.0, dice + half)


def find_width(dice: float) -> float:
    """Return the relative width of an interval: the higher the Dice, the narrower."""
    return _MIN_WIDTH + 1 - dice


def find_spacing_gap(spacing: Sequence[float], ranges: Sequence[tuple[float, float]]) -> float:
    """Return the largest factor by which a voxel size is outside its range; 1 inside all."""
    return max(
        max(low / side, side / high, 1.0) for side, (low, high) in zip(spacing, ranges, strict=True)
    )


def combine_quality(estimates: Sequence[Quality]) -> Quality:
    """Return the mean over ensemble members. OOD if more than half of the members agree."""
    if len(estimates) == 1:
        return estimates[0]
    flag = combine_flags(estimates)
    return Quality(
        dice=float(np.mean([quality.dice for quality in estimates])),
        low=float(np.mean([quality.low for quality in estimates])),
        high=float(np.mean([quality.high for quality in estimates])),
        level=min(quality.level for quality in estimates),
        is_ood=flag.is_ood,
        ood_score=flag.ood_score,
        reasons=flag.reasons,
    )


def combine_flags(flags: Sequence[OODFlag | Quality]) -> OODFlag:
    """Return the flag of an ensemble: OOD if more than half of the members agree."""
    if len(flags) == 1:
        only = flags[0]
        return OODFlag(is_ood=only.is_ood, ood_score=only.ood_score, reasons=only.reasons)
    count = sum(flag.is_ood for flag in flags)
    is_ood = 2 * count > len(flags)
    reasons = dict.fromkeys(reason for flag in flags for reason in flag.reasons)
    return OODFlag(
        is_ood=is_ood,
        ood_score=float(np.median([flag.ood_score for flag in flags])),
        reasons=(f"{count} of {len(flags)} models", *reasons) if is_ood else (),
    )

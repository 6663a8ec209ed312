"""How good a mask probably is, and whether its image is of the kind that the network knows.

A `QualityModel` is fitted at the end of a training (`fitting.py`) and goes with the
weights. Everything in it is numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segnetr.engine.quality.dice_regression import DiceRegression
from segnetr.engine.quality.feature_collector import FileKind, ImageFeatures
from segnetr.engine.quality.ood import Cloud
from segnetr.engine.quality.probability_features import VIEWS_FEATURE

_LEAST_WIDTH = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What is believed about one mask.

    Attributes:
        dice: Predicted Dice, the mean over the foreground classes, 0 to 1.
        low: Lower end of its interval.
        high: Upper end.
        level: Probability that the interval holds the true one, for cases like the validation
            cases.
        is_ood: Whether the image is unlike the training set: neither number is to be believed.
        novelty: The largest distance from the training set over its limit; above 1 is unlike.
        reasons: What is unlike, one word or line each.
    """

    dice: float
    low: float
    high: float
    level: float
    is_ood: bool
    ood_score: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationCase:
    """A validation case that was fitted on.

    Attributes:
        case_id: The case.
        dice: Its true Dice.
        predicted: Dice that was predicted for it by a regression fitted without its patient.
    """

    case_id: str
    dice: float
    predicted: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Familiarity:
    """What the training set is like, and how far from it a case may lie.

    Attributes:
        kind: Images or volumes.
        spacing: For each axis the smallest and largest voxel side in mm; None: files do not say.
        spacing_factor: How far outside a voxel side may lie, as a factor.
        clouds: Of the appearance ("intensity") and of the deepest level ("embedding").
        limits: Distance above which a case is unlike, for each cloud.
    """

    kind: FileKind
    spacing: tuple[tuple[float, float], ...] | None
    spacing_factor: float
    clouds: Mapping[str, Cloud]
    limits: Mapping[str, float]

    def measure(self, seen: ImageFeatures) -> dict[str, float]:
        """Give the distance of each cloud over its limit."""
        points = {"intensity": seen.appearance, "embedding": seen.embedding}
        return {
            name: float(cloud.measure(points[name][None])[0] / self.limits[name])
            for name, cloud in self.clouds.items()
        }

    def judge(self, seen: ImageFeatures) -> tuple[float, tuple[str, ...]]:
        """Give the largest distance over its limit, and what is unlike."""
        distances = self.measure(seen)
        reasons = [
            f"{name} {ratio:.1f} times its limit" for name, ratio in distances.items() if ratio > 1
        ]
        if seen.kind != self.kind:
            reasons.insert(0, f"a {seen.kind}, trained on {self.kind}s")
            return max(2.0, *distances.values()), tuple(reasons)
        gap = self._find_spacing_gap(seen.spacing)
        if gap > self.spacing_factor:
            sides = " x ".join(f"{side:.3g}" for side in seen.spacing or ())
            reasons.append(f"spacing {sides} mm" if sides else "spacing not known")
        return max(gap / self.spacing_factor, *distances.values()), tuple(reasons)

    def _find_spacing_gap(self, spacing: tuple[float, ...] | None) -> float:
        """Give the factor by which a voxel side lies outside those of the training set, 1 inside.

        An unknown one is twice as far as is allowed.
        """
        if self.spacing is None:
            return 0.0
        if spacing is None or len(spacing) != len(self.spacing):
            return 2 * self.spacing_factor
        return find_spacing_gap(spacing, self.spacing)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QualityModel:
    """All that is fitted at the end of a training.

    Attributes:
        level: Dotted name of the network's deepest level.
        temperature: By which logits are divided.
        features: Names of the features of the probability map, in the order of the regression.
        regression: From features to Dice.
        interval_level: Probability of the interval.
        radius: Half the width of the interval, over the width that `find_width` gives.
        familiarity: Of the training set.
        cases: The validation cases it was fitted on.
    """

    level: str
    temperature: float
    features: tuple[str, ...]
    regression: DiceRegression
    interval_level: float
    radius: float
    familiarity: Familiarity
    cases: tuple[CalibrationCase, ...]

    @property
    def needs_views(self) -> bool:
        """Whether several views of each slice are needed."""
        return VIEWS_FEATURE in self.features

    def judge(self, seen: ImageFeatures) -> Quality:
        """Say what is believed about a mask."""
        row = np.array([[seen.features[name] for name in self.features]])
        dice = float(self.regression.predict(row)[0])
        ood_score, reasons = self.familiarity.judge(seen)
        half = self.radius * find_width(dice)
        return Quality(
            dice=dice,
            low=max(0.0, dice - half),
            high=min(1.0, dice + half),
            level=self.interval_level,
            is_ood=bool(reasons),
            ood_score=ood_score,
            reasons=reasons,
        )

    def recall(self, case_id: str, quality: Quality) -> Quality:
        """Replace the prediction for a case that was fitted on by that of its left-out fit."""
        known = next((case for case in self.cases if case.case_id == case_id), None)
        if known is None:
            return quality
        half = self.radius * find_width(known.predicted)
        return Quality(
            dice=known.predicted,
            low=max(0.0, known.predicted - half),
            high=min(1.0, known.predicted + half),
            level=quality.level,
            is_ood=quality.is_ood,
            ood_score=quality.ood_score,
            reasons=quality.reasons,
        )


def find_width(dice: float) -> float:
    """Give how wide an interval is relative to others: the surer the mask, the narrower."""
    return _LEAST_WIDTH + 1 - dice


def find_spacing_gap(spacing: Sequence[float], ranges: Sequence[tuple[float, float]]) -> float:
    """Give the largest factor by which a voxel side lies outside its range; 1 inside all."""
    return max(
        max(low / side, side / high, 1.0) for side, (low, high) in zip(spacing, ranges, strict=True)
    )


def combine(found: Sequence[Quality]) -> Quality:
    """Give the mean of what the members of an ensemble say; unlike where more than half say so."""
    if len(found) == 1:
        return found[0]
    unlike = sum(quality.is_ood for quality in found)
    is_ood = 2 * unlike > len(found)
    reasons = [reason for quality in found for reason in quality.reasons]
    return Quality(
        dice=float(np.mean([quality.dice for quality in found])),
        low=float(np.mean([quality.low for quality in found])),
        high=float(np.mean([quality.high for quality in found])),
        level=min(quality.level for quality in found),
        is_ood=is_ood,
        ood_score=float(np.median([quality.ood_score for quality in found])),
        reasons=(f"{unlike} of {len(found)} models", *dict.fromkeys(reasons)) if is_ood else (),
    )

"""A small regression from what a probability map looks like to the Dice it will have.

The Dice expected from the probabilities themselves is the start; a ridge regression adds what the
other features know beyond it. The fewer the cases, the harder the correction is held at zero, so
with very few the answer is the expected Dice and a constant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 1e6)
"""Ridge penalties that are tried, in squared deviations of a feature; the last allows nothing."""

_LEAST_SPREAD = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DiceRegression:
    """Predicted Dice = features[0] + intercept + weights * (features - center) / scale, in 0 to 1.

    Attributes:
        center: (F,) mean of each feature.
        scale: (F,) deviation of each.
        weights: (F,) of the correction.
        intercept: Mean of true less expected Dice.
        penalty: The one that was chosen.
    """

    center: Floats
    scale: Floats
    weights: Floats
    intercept: float
    penalty: float

    def predict(self, features: Floats) -> Floats:
        """Give the Dice (n,) that is predicted from features (n, F)."""
        correction = (features - self.center) / self.scale @ self.weights
        return np.clip(features[:, 0] + self.intercept + correction, 0.0, 1.0)


def fit_dice_regression(
    features: Floats, dice: Floats, *, groups: Sequence[str]
) -> tuple[DiceRegression, Floats]:
    """Fit the regression, and predict each case by one that never saw its group.

    The penalty is the largest whose left-out error is within a standard error of the lowest.

    Args:
        features: (n, F); the first one is the expected Dice.
        dice: (n,) true Dice.
        groups: Patient of each case; left out together.

    Returns:
        The regression on all cases, and the left-out predictions (n,).

    Raises:
        ValueError: If there is only one group.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise ValueError("left-out predictions need two groups at least")
    member = np.array([names.index(name) for name in groups])
    left_out = {penalty: _leave_out(features, dice, member, penalty) for penalty in PENALTIES}
    errors = {penalty: (found - dice) ** 2 for penalty, found in left_out.items()}
    best = min(PENALTIES, key=lambda penalty: float(errors[penalty].mean()))
    slack = float(errors[best].std(ddof=1) / np.sqrt(len(dice)))
    penalty = max(p for p in PENALTIES if errors[p].mean() <= errors[best].mean() + slack)
    return _solve(features, dice, penalty), left_out[penalty]


def _leave_out(
    features: Floats, dice: Floats, member: NDArray[np.integer], penalty: float
) -> Floats:
    found = np.empty(len(dice))
    for group in np.unique(member):
        out = member == group
        found[out] = _solve(features[~out], dice[~out], penalty).predict(features[out])
    return found


def _solve(features: Floats, dice: Floats, penalty: float) -> DiceRegression:
    center = features.mean(axis=0)
    spread = features.std(axis=0)
    # A feature that never varied says nothing, and may not be blown up by a case where it does.
    scale = np.where(spread > _LEAST_SPREAD, spread, np.inf)
    rows = (features - center) / scale
    missing = dice - features[:, 0]
    intercept = float(missing.mean())
    gram = rows.T @ rows + penalty * np.eye(rows.shape[1])
    weights = np.linalg.solve(gram, rows.T @ (missing - intercept))
    known = np.isfinite(scale)
    return DiceRegression(
        center=center,
        scale=np.where(known, scale, 1.0),
        weights=np.where(known, weights, 0.0),
        intercept=intercept,
        penalty=penalty,
    )

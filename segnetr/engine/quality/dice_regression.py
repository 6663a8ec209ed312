"""Ridge regression from features of a probability map to the Dice of its mask.

It starts from the Dice expected from the probabilities themselves and adds a correction from the
other features. The fewer the cases, the more the correction is shrunk. With very few cases, the
result is the expected Dice plus a constant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 1e6)
"""Ridge penalties that are tried, for standardized features. The last one allows no correction."""

_MIN_DEVIATION = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DiceRegression:
    """Predicted Dice = features[0] + intercept + weights * (features - center) / scale, in 0 to 1.

    Attributes:
        center: (F,) mean of each feature.
        scale: (F,) standard deviation of each feature.
        weights: (F,) of the correction.
        intercept: Mean of true minus expected Dice.
        penalty: The selected penalty.
    """

    center: _Floats
    scale: _Floats
    weights: _Floats
    intercept: float
    penalty: float

    def predict(self, features: _Floats) -> _Floats:
        """Return the predicted Dice (n,) for features (n, F)."""
        correction = (features - self.center) / self.scale @ self.weights
        return np.clip(features[:, 0] + self.intercept + correction, 0.0, 1.0)


def fit_dice_regression(
    features: _Floats, dice: _Floats, *, groups: Sequence[str]
) -> tuple[DiceRegression, _Floats]:
    """Fit the regression, and predict each case with a regression fitted without its group.

    The penalty is the largest one whose left-out error is within one standard error of the lowest.

    Args:
        features: (n, F), the first of which is the expected Dice.
        dice: (n,) true Dice.
        groups: Patient of each case. Cases of one patient are left out at the same time.

    Returns:
        The regression on all cases, and the left-out predictions (n,).

    Raises:
        ValueError: If there is only one group.
    """
    if len(set(groups)) < 2:
        raise ValueError("left-out predictions need at least two groups")
    left_out = {penalty: _leave_out(features, dice, groups, penalty) for penalty in PENALTIES}
    errors = {penalty: (predicted - dice) ** 2 for penalty, predicted in left_out.items()}
    best = min(PENALTIES, key=lambda penalty: float(errors[penalty].mean()))
    standard_error = float(errors[best].std(ddof=1) / np.sqrt(len(dice)))
    limit = errors[best].mean() + standard_error
    penalty = max(each for each in PENALTIES if errors[each].mean() <= limit)
    return _fit(features, dice, penalty), left_out[penalty]


def _leave_out(features: _Floats, dice: _Floats, groups: Sequence[str], penalty: float) -> _Floats:
    from sklearn.model_selection import LeaveOneGroupOut

    predicted = np.empty(len(dice))
    for fitted, out in LeaveOneGroupOut().split(features, dice, groups):
        regression = _fit(features[fitted], dice[fitted], penalty)
        predicted[out] = regression.predict(features[out])
    return predicted


def _fit(features: _Floats, dice: _Floats, penalty: float) -> DiceRegression:
    # Fitting happens at the end of a training. Prediction must not import scikit-learn.
    from sklearn.linear_model import Ridge

    center = features.mean(axis=0)
    deviation = features.std(axis=0)
    # A constant feature gets no weight, so that a case in which it differs is not blown up.
    varies = deviation > _MIN_DEVIATION
    rows = np.where(varies, (features - center) / np.where(varies, deviation, 1.0), 0.0)
    residual = dice - features[:, 0]
    intercept = float(residual.mean())
    ridge = Ridge(alpha=penalty, fit_intercept=False, solver="cholesky")
    weights = ridge.fit(rows, residual - intercept).coef_
    return DiceRegression(
        center=center,
        scale=np.where(varies, deviation, 1.0),
        weights=np.where(varies, weights, 0.0),
        intercept=intercept,
        penalty=penalty,
    )

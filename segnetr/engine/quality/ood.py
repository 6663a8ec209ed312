"""Out-of-distribution distance: Mahalanobis distance from few cases with many numbers each.

The covariance is shrunk towards a sphere by the amount that Ledoit and Wolf derive from its own
uncertainty. Only its longest axes are kept, and all other directions get the same variance.

Source:
    Ledoit and Wolf, A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices, J.
    Multivar. Anal. 88, 2004, section 3; Lee et al., A Simple Unified Framework for Detecting
    Out-of-Distribution Samples, NeurIPS 2018, arXiv:1807.03888 (distance in a network's features).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]

_MAX_AXES = 64
_MIN_VARIANCE = 1e-6
_MIN_DISTANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MahalanobisDetector:
    """Gaussian density of the training cases.

    Attributes:
        center: (F,) mean.
        scale: (F,) standard deviation of each number, which it is divided by first.
        axes: (R, F) unit vectors of the principal axes, longest first. R may be 0.
        lengths: (R,) variance along each axis.
        rest: Variance along every other direction.
    """

    center: _Floats
    scale: _Floats
    axes: _Floats
    lengths: _Floats
    rest: float

    def measure(self, points: _Floats) -> _Floats:
        """Return the distance (n,) of points (n, F). Points that were fitted have about 1."""
        rows = (points - self.center) / self.scale
        along = rows @ self.axes.T
        across = np.maximum((rows**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        squares = (along**2 / self.lengths).sum(axis=1) + across / self.rest
        distances: _Floats = np.sqrt(squares / rows.shape[1])
        return distances


def fit_detector(points: _Floats) -> MahalanobisDetector:
    """Fit the density of points.

    Args:
        points: (n, F), at least two points.

    Raises:
        ValueError: If there are fewer than two points.
    """
    if len(points) < 2:
        raise ValueError(f"a density needs at least two points, not {len(points)}")
    # Fitting happens at the end of a training. Prediction must not import scikit-learn.
    from sklearn.covariance import ledoit_wolf_shrinkage

    center = points.mean(axis=0)
    # A constant number gets a scale relative to its value: a change is then large, but finite.
    smallest = np.maximum(_MIN_VARIANCE, 1e-3 * np.abs(center))
    scale = np.maximum(points.std(axis=0), smallest)
    rows = (points - center) / scale
    count, width = rows.shape
    total = float((rows**2).sum() / count)
    mean = max(total / width, _MIN_VARIANCE)
    _, singular, directions = np.linalg.svd(rows, full_matrices=False)
    lengths = singular**2 / count
    shrinkage = float(ledoit_wolf_shrinkage(rows, assume_centered=True))
    num_axes = min(_MAX_AXES, int((lengths > _MIN_VARIANCE).sum()))
    left = max(total - float(lengths[:num_axes].sum()), 0.0) / max(width - num_axes, 1)
    return MahalanobisDetector(
        center=center,
        scale=scale,
        axes=directions[:num_axes],
        lengths=(1 - shrinkage) * lengths[:num_axes] + shrinkage * mean,
        rest=max((1 - shrinkage) * left + shrinkage * mean, _MIN_VARIANCE),
    )


def measure_left_out(points: _Floats, *, groups: Sequence[str]) -> list[float]:
    """Return the distance of each point from the density of the points of all other groups.

    Args:
        points: (n, F).
        groups: Patient of each point.

    Returns:
        One distance per point. Points whose group leaves fewer than two others are omitted.
    """
    names = np.array(groups)
    distances: list[float] = []
    for name in np.unique(names):
        out = names == name
        if (~out).sum() >= 2:
            distances += fit_detector(points[~out]).measure(points[out]).tolist()
    return distances


def find_limit(distances: Sequence[float], *, level: float = 0.99) -> float:
    """Return the distance that another case of the same kind stays below with this probability.

    The logarithms of the distances are assumed to be normal. Their small number is accounted for by
    Student's t with one further case. Three cases give a wide limit, hundreds about the 99th
    percentile.

    Args:
        distances: Of cases that the density was not fitted to, at least two.
        level: Probability, 0 to 1.

    Raises:
        ValueError: If there are fewer than two distances.
    """
    if len(distances) < 2:
        raise ValueError(f"a limit needs at least two distances, not {len(distances)}")
    from scipy import stats  # takes most of a second to import, and prediction does not need it

    logarithms = np.log(np.maximum(np.asarray(distances, dtype=np.float64), _MIN_DISTANCE))
    count = len(logarithms)
    factor = float(stats.t.ppf(level, count - 1)) * np.sqrt(1 + 1 / count)
    return float(np.exp(logarithms.mean() + factor * logarithms.std(ddof=1)))

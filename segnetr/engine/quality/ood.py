"""How far a case lies from a cloud of cases: Mahalanobis distance with few cases, many numbers.

The covariance is drawn towards a sphere as far as its own uncertainty says (Ledoit and Wolf), and
only its longest axes are kept; along all others the cloud is taken as equally wide.

Source:
    Ledoit and Wolf, A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices, J.
    Multivar. Anal. 88, 2004, section 3; Lee et al., A Simple Unified Framework for Detecting
    Out-of-Distribution Samples, NeurIPS 2018, arXiv:1807.03888 (distance in a network's features).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

_MOST_AXES = 64
_LEAST_SPREAD = 1e-6
_LEAST_DISTANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cloud:
    """Where cases lie, as a Gaussian.

    Attributes:
        center: (F,) mean.
        scale: (F,) deviation of each number, by which it is divided first.
        axes: (R, F) unit vectors, longest axis first; R may be 0.
        lengths: (R,) variance along each.
        rest: Variance along every other direction.
    """

    center: Floats
    scale: Floats
    axes: Floats
    lengths: Floats
    rest: float

    def measure(self, points: Floats) -> Floats:
        """Give the distance (n,) of points (n, F), about 1 for those that the cloud is made of."""
        rows = (points - self.center) / self.scale
        along = rows @ self.axes.T
        beside = np.maximum((rows**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        squares = (along**2 / self.lengths).sum(axis=1) + beside / self.rest
        distances: Floats = np.sqrt(squares / rows.shape[1])
        return distances


def fit_cloud(points: Floats) -> Cloud:
    """Describe where points lie.

    Args:
        points: (n, F), two at least.

    Raises:
        ValueError: If there are fewer.
    """
    if len(points) < 2:
        raise ValueError("a cloud needs two points at least")
    center = points.mean(axis=0)
    spread = points.std(axis=0)
    # Relative to the value itself where nothing varied: a change then stands out, but is finite.
    least = np.maximum(_LEAST_SPREAD, 1e-3 * np.abs(center))
    scale = np.maximum(spread, least)
    rows = (points - center) / scale
    count, width = rows.shape
    total = float((rows**2).sum() / count)
    mean = max(total / width, _LEAST_SPREAD)
    _, singular, directions = np.linalg.svd(rows, full_matrices=False)
    lengths = singular**2 / count
    shrinkage = _find_shrinkage(rows, lengths, mean)
    kept = min(_MOST_AXES, int((lengths > _LEAST_SPREAD).sum()))
    left = max(total - float(lengths[:kept].sum()), 0.0) / max(width - kept, 1)
    return Cloud(
        center=center,
        scale=scale,
        axes=directions[:kept],
        lengths=(1 - shrinkage) * lengths[:kept] + shrinkage * mean,
        rest=max((1 - shrinkage) * left + shrinkage * mean, _LEAST_SPREAD),
    )


def measure_left_out(points: Floats, *, groups: Sequence[str]) -> list[float]:
    """Give the distance of each point from the cloud of the points of all other groups.

    Args:
        points: (n, F).
        groups: Patient of each point.

    Returns:
        One distance for each point; those of a group that leaves fewer than two others are missing.
    """
    names = np.array(groups)
    found: list[float] = []
    for name in np.unique(names):
        out = names == name
        if (~out).sum() >= 2:
            found += fit_cloud(points[~out]).measure(points[out]).tolist()
    return found


def _find_shrinkage(rows: Floats, lengths: Floats, mean: float) -> float:
    """Give the share of the sphere in the covariance, 0 to 1.

    Args:
        rows: (n, F), their mean taken away.
        lengths: Variances of the sample covariance along its axes; 0 along all others.
        mean: Mean variance of a number.
    """
    count, width = rows.shape
    squared = float((lengths**2).sum())
    apart = squared - width * mean**2  # |S - mean I|^2
    if apart <= 0:
        return 1.0
    # Mean over the points of |x x' - S|^2, with sum of x' S x = n |S|^2.
    noise = (float(((rows**2).sum(axis=1) ** 2).sum()) / count - squared) / count
    return float(min(max(noise / apart, 0.0), 1.0))


def find_limit(distances: Sequence[float], *, level: float = 0.99) -> float:
    """Give the distance that one more case of the same kind stays below with this probability.

    Logarithms of distances are taken as normal, and the few that there are as few: Student's t with
    one more case to come. Three cases give a wide limit, hundreds about the 99th percentile.

    Args:
        distances: Of cases that the cloud was not made of; two at least.
        level: Probability, 0 to 1.

    Raises:
        ValueError: If there are fewer than two.
    """
    if len(distances) < 2:
        raise ValueError("a limit needs two distances at least")
    logarithms = np.log(np.maximum(np.asarray(distances, dtype=np.float64), _LEAST_DISTANCE))
    count = len(logarithms)
    factor = float(stats.t.ppf(level, count - 1)) * np.sqrt(1 + 1 / count)
    return float(np.exp(logarithms.mean() + factor * logarithms.std(ddof=1)))

"""Temperature scaling: one number that calibrates the probabilities of a network.

Source:
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, arXiv:1706.04599, section 4.2.
"""

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 0.2, 20.0
"""Search range. A temperature at either end means that the probabilities are uninformative."""

_TINY = 1e-6


def scale_probabilities(
    probabilities: NDArray[np.floating], temperature: float
) -> NDArray[np.float64]:
    """Return the softmax of the logits divided by the temperature.

    Args:
        probabilities: (n, K), each row summing to 1. 0 counts as 1e-6.
        temperature: Above 1 lowers the confidence, below 1 raises it.
    """
    return np.exp(_scale_logarithms(probabilities, temperature))


def fit_temperature(
    probabilities: NDArray[np.floating],
    ground_truth: NDArray[np.integer],
    *,
    weights: NDArray[np.float64] | None = None,
) -> float:
    """Return the temperature that maximizes the likelihood of the ground truth.

    Args:
        probabilities: (n, K) of pixels.
        ground_truth: (n,) true class of each.
        weights: (n,) of each pixel, for example so that all cases count the same. None: all equal.

    Raises:
        ValueError: If there is no pixel.
    """
    if ground_truth.size == 0:
        raise ValueError("a temperature needs at least one pixel")
    # Importing scipy.optimize takes long, and prediction does not need it.
    from scipy.optimize import minimize_scalar

    share = np.ones(len(ground_truth)) if weights is None else weights
    rows = np.arange(len(ground_truth))

    def measure(logarithm: float) -> float:
        scaled = _scale_logarithms(probabilities, float(np.exp(logarithm)))
        return float(-(share * scaled[rows, ground_truth]).sum() / share.sum())

    ends = (float(np.log(LOWEST)), float(np.log(HIGHEST)))
    found = minimize_scalar(measure, bounds=ends, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def _scale_logarithms(
    probabilities: NDArray[np.floating], temperature: float
) -> NDArray[np.float64]:
    """Return the logarithms of the scaled probabilities (n, K)."""
    powers = np.log(np.maximum(probabilities.astype(np.float64), _TINY)) / temperature
    powers -= powers.max(axis=1, keepdims=True)
    scaled: NDArray[np.float64] = powers - np.log(np.exp(powers).sum(axis=1, keepdims=True))
    return scaled

"""Temperature scaling: calibrate probabilities with one parameter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BOUNDS = (0.1, 10.0)
"""Range of temperatures; without a lower bound, an error-free validation split would give 0."""


def apply_temperature(
    log_probabilities: NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    """Return softmax(log_probabilities / temperature), float64 [n, labels].

    A temperature above 1 lowers the confidence, below 1 raises it; the ranking never changes.

    Raises:
        ValueError: the temperature is not positive.
    """
    return np.exp(_log_softmax(log_probabilities, temperature))


def fit_temperature(log_probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return the temperature within `BOUNDS` that minimizes the log loss.

    Fit it on validation products: on training products it would hide overconfidence, and on
    test products it would make the reported calibration error too small.

    Args:
        log_probabilities: [n, labels].
        truth: int64 [n], the index of the true label.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        scaled = _log_softmax(log_probabilities, float(np.exp(log_temperature)))
        return float(-scaled[rows, truth].mean())

    result = minimize_scalar(loss, bounds=tuple(np.log(BOUNDS)), method="bounded")
    return float(np.exp(result.x))


def _log_softmax(log_probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return log softmax(log_probabilities / temperature), in float64."""
    from scipy.special import log_softmax

    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: expected a positive number")
    result: NDArray[np.float64] = log_softmax(log_probabilities.astype(float) / temperature, axis=1)
    return result

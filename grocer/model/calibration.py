"""Temperature scaling: one number that makes a confidence of 0.8 right 8 times in 10."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BOUNDS = (0.1, 10.0)
"""Temperatures that are considered; a validation split without an error would have none below."""


def apply_temperature(
    log_probabilities: NDArray[np.float64], temperature: float
) -> NDArray[np.float64]:
    """Probabilities softmax(log_probabilities / temperature), [n, labels]; rows sum to 1.

    A temperature above 1 softens, below 1 sharpens; the order of the labels never changes.
    """
    return np.exp(_scaled(log_probabilities, temperature))


def fit_temperature(log_probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """The temperature with the least log loss on `truth` [n], within `BOUNDS`.

    Fit it on validation products: on training products it would hide overconfidence, and on
    test products it would flatter the calibration error that is reported there.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        scaled = _scaled(log_probabilities, float(np.exp(log_temperature)))
        return float(-scaled[rows, truth].mean())

    found = minimize_scalar(loss, bounds=tuple(np.log(BOUNDS)), method="bounded")
    return float(np.exp(found.x))


def _scaled(log_probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """log softmax(log_probabilities / temperature), in float64."""
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: must be above 0")
    scaled = np.asarray(log_probabilities, dtype=np.float64) / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return result

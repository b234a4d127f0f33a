"""Drift: how far the labels of recent predictions are from those of the catalogue.

Traffic may consist of products, each about equally often, or follow purchases, of which a few
popular products are a large part. Neither is drift, so the closer reference counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MIN_PREDICTIONS = 1000
"""With fewer recent predictions, the distance is not defined."""

Floats = NDArray[np.float64]


def closest_reference(counts: Floats, references: Floats) -> Floats:
    """Return the reference whose shares are the closest to those of `counts`.

    Args:
        counts: [labels], recent predictions of each label.
        references: [references, labels], shares that sum to 1.
    """
    distances = np.abs(counts / max(counts.sum(), 1.0) - references).sum(axis=1)
    result: Floats = references[distances.argmin()]
    return result


def drift(counts: Floats, references: Floats) -> float:
    """Return the total variation distance from the closest reference, debiased, between 0 and 1.

    Shares of a sample differ from the reference also without drift, the more so the more labels
    there are. The square of the mean distance without drift is subtracted from the squared
    distance. NaN with fewer than `MIN_PREDICTIONS`.
    """
    total = counts.sum()
    if total < MIN_PREDICTIONS:
        return float("nan")
    reference = closest_reference(counts, references)
    distance = np.abs(counts / total - reference).sum() / 2
    # Mean absolute deviation of a binomial share, by its normal approximation.
    by_chance = np.sqrt(2 * reference * (1 - reference) / (np.pi * total)).sum() / 2
    return float(np.sqrt(max(0.0, distance**2 - by_chance**2)))

"""Confidence bound of the difference of two accuracies on the same products."""

from __future__ import annotations

import math
from statistics import NormalDist

from grocer.artifacts.metrics import PairedTest


def lower_bound(paired: PairedTest, level: float) -> float:
    """Return the one-sided lower confidence bound of the model's accuracy minus the baseline's.

    The bound is the difference that Tango's score test rejects at `level` (Tango 1998,
    doi:10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B). The test is conservative
    also at small levels and with few discordant pairs.
    """
    quantile = NormalDist().inv_cdf(1 - level)
    low, high = -1.0, (paired.only_model_right - paired.only_baseline_right) / paired.products
    for _ in range(60):  # more than the bits of a float
        middle = (low + high) / 2
        if _score(paired, middle) > quantile:
            low = middle
        else:
            high = middle
    return low


def _score(paired: PairedTest, difference: float) -> float:
    """The score statistic of the hypothesis that accuracies differ by `difference`, in (-1, 1)."""
    n, won, lost = paired.products, paired.only_model_right, paired.only_baseline_right
    b = (2 * n - won + lost) * difference - won - lost
    c = -lost * difference * (1 - difference)
    # Estimated share of the products on which only the baseline is right, under the hypothesis.
    share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * share + difference * (1 - difference))
    return (won - lost - n * difference) / math.sqrt(variance) if variance > 0 else 0.0

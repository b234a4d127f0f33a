"""Confidence bound of the difference of two accuracies on the same products."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray


def upper_bound(
    lost: ArrayLike, gained: ArrayLike, products: int, level: float
) -> NDArray[np.float64]:
    """Return the one-sided upper confidence bound of (lost - gained) / products, elementwise.

    The bound is the difference that Tango's score test rejects at `level` (Tango 1998,
    doi:10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>3.0.CO;2-B). The test is conservative
    also at small levels and with few or no disagreements.

    Args:
        lost, gained: int64, products that only the one or only the other classifies correctly.
    """
    lost, gained = np.asarray(lost, dtype=np.float64), np.asarray(gained, dtype=np.float64)
    quantile = NormalDist().inv_cdf(1 - level)
    difference = lost - gained
    low: NDArray[np.float64] = difference / max(products, 1)
    high: NDArray[np.float64] = np.ones_like(difference)
    for _ in range(60):  # more than the bits of a float
        middle = (low + high) / 2
        # Maximum-likelihood estimate of the share that is gained, if the difference is `middle`.
        b = -lost - gained + (2 * products - difference) * middle
        c = -gained * middle * (1 - middle)
        share = (np.sqrt(np.maximum(b**2 - 8 * products * c, 0)) - b) / (4 * products)
        variance = products * (2 * share + middle * (1 - middle))
        above = products * middle - difference >= quantile * np.sqrt(np.maximum(variance, 0))
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return high

"""Which share of products can be classified automatically, by a minimum confidence.

Thresholds are chosen on the validation products and measured on the test products: if they were
chosen on the products that they are measured on, their accuracy would be overstated.

`confidence` is the probability of the predicted label, float64 [n]; `correct` is bool [n].
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from grocer.artifacts.metrics import Accuracy, CoveragePoint, OperatingPoint
from grocer.evaluation.metrics import Bools, Floats, accuracy

REQUIRED = (0.9, 0.95, 0.98, 0.99)
"""Accuracies for which a threshold is chosen."""


def curve(thresholds: Floats, confidence: Floats, correct: Bools) -> tuple[CoveragePoint, ...]:
    """Return coverage and accuracy of all products and at 19 quantiles of `thresholds`.

    A threshold that no product reaches is omitted.
    """
    levels = np.quantile(thresholds, np.linspace(0.05, 0.95, 19), method="lower")
    return tuple(
        CoveragePoint(
            threshold=float(level),
            coverage=float(covered.mean()),
            accuracy=float(correct[covered].mean()),
        )
        for level in np.unique([0.0, *levels])
        if (covered := confidence >= level).any()
    )


def threshold(
    confidence: Floats, correct: Bools, required: float, confidence_level: float
) -> float | None:
    """Return the lowest confidence from which on accuracy is at least `required`.

    The lower bound of Wilson's interval is required, as the best of many thresholds is often good
    by chance. None if no threshold suffices.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    counts = np.arange(1, len(ranked) + 1)
    shares = np.cumsum(correct[order]) / counts
    z2 = NormalDist().inv_cdf((1 + confidence_level) / 2) ** 2
    root = np.sqrt(z2 * shares * (1 - shares) / counts + (z2 / counts / 2) ** 2)
    low = (shares + z2 / counts / 2 - root) / (1 + z2 / counts)
    # Equal confidences are accepted together.
    suffices = (low >= required) & np.append(ranked[1:] != ranked[:-1], True)
    return float(ranked[suffices].min()) if suffices.any() else None


def operating_points(
    validation: tuple[Floats, Bools], test: tuple[Floats, Bools], confidence_level: float
) -> tuple[OperatingPoint, ...]:
    """Return the threshold for each accuracy in `REQUIRED`, measured on test.

    Args:
        validation, test: confidence and correctness of the products of each side.
    """
    confidence, correct = test
    points = []
    for required in REQUIRED:
        chosen = threshold(*validation, required, confidence_level)
        covered = confidence >= (np.inf if chosen is None else chosen)
        points.append(
            OperatingPoint(
                required_accuracy=required,
                threshold=chosen,
                coverage=float(covered.mean()),
                accuracy=Accuracy(**accuracy(correct[covered], confidence_level))
                if covered.any()
                else None,
            )
        )
    return tuple(points)

"""Metrics as pure functions of arrays.

`truth` and `predicted` are int64 [n], indices in the label set; `correct` is bool [n];
`confidence` is the probability of the predicted label, float64 [n]; `probabilities` are float64
[n, labels] and rows sum to 1. A metric that is undefined is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grocer.artifacts.metrics import Calibration, DepartmentMetrics, ReliabilityBin, SideMetrics
from grocer.config.stages import EvaluationConfig

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

RESAMPLES, SEED = 1000, 23
"""Number of bootstrap resamples, and the seed of all sampling."""
BINS = 10
"""Number of equal-width confidence bins of the reliability curve and of ECE."""


def measure(
    probabilities: Floats,
    truth: Ints,
    purchases: Ints,
    first_words: ArrayLike,
    settings: EvaluationConfig,
) -> SideMetrics:
    """Return all metrics of one side of the split.

    Args:
        purchases: int64 [n], of each product.
        first_words: [n], the first word of each product's name.

    Raises:
        FloatingPointError: a row of `probabilities` does not sum to 1, or holds NaN.
    """
    sums = probabilities.sum(axis=1)
    if len(rows := np.flatnonzero(~np.isclose(sums, 1.0))):
        raise FloatingPointError(f"probabilities of row {rows[0]} sum to {sums[rows[0]]}, not to 1")
    predicted = probabilities.argmax(axis=1)
    correct = predicted == truth
    return SideMetrics(
        **accuracy(correct, settings.confidence),
        **cluster_interval(correct, first_words, settings.confidence),
        macro_f1=macro_f1(truth, predicted),
        top3_accuracy=top_k_accuracy(probabilities, truth, 3),
        **weighted_accuracy(correct, purchases, settings.confidence),
        **dict(calibration(probabilities.max(axis=1), correct)),
        log_loss=log_loss(probabilities, truth),
    )


def accuracy(correct: Bools, confidence: float) -> dict[str, Any]:
    """Return the fields of `Accuracy`: the share of correct products and its Wilson interval."""
    from scipy.stats import binomtest

    count = int(correct.sum())
    interval = binomtest(count, len(correct)).proportion_ci(confidence, method="wilson")
    return {
        "products": len(correct),
        "accuracy": count / len(correct),
        "accuracy_low": float(interval.low),
        "accuracy_high": float(interval.high),
    }


def cluster_interval(correct: Bools, clusters: ArrayLike, confidence: float) -> dict[str, Any]:
    """Return a bootstrap percentile interval of accuracy, in which clusters are resampled.

    Wilson's interval assumes that products are independent. Products of one brand are often correct
    or wrong together.

    Args:
        clusters: [n], the cluster of each product.
    """
    _, index = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    low, high = _ratio_interval(np.bincount(index, correct), np.bincount(index), confidence)
    share = correct.mean()
    return {"cluster_low": float(min(low, share)), "cluster_high": float(max(high, share))}


def macro_f1(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return the unweighted mean F1 of the labels that occur in `truth` or `predicted`."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, average="macro"))


def top_k_accuracy(probabilities: Floats, truth: Ints, k: int) -> float:
    """Return the share of products whose label is among the `k` most probable.

    Ties keep the order of the label set.
    """
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((ranked == truth[:, None]).any(axis=1).mean())


def weighted_accuracy(correct: Bools, purchases: Ints, confidence: float) -> dict[str, Any]:
    """Return accuracy weighted by purchases, with a bootstrap percentile interval.

    Products are resampled, not purchases, since the purchases of one product are not independent.
    Without any purchases every product has weight 1.
    """
    weights = purchases if purchases.sum() > 0 else np.ones_like(purchases)
    low, high = _ratio_interval(weights * correct, weights, confidence)
    return {
        "weighted_accuracy": float(weights[correct].sum() / weights.sum()),
        "weighted_accuracy_low": low,
        "weighted_accuracy_high": high,
    }


def _ratio_interval(numerators: Any, denominators: Ints, confidence: float) -> tuple[float, float]:
    """Return the ends of the bootstrap percentile interval of the ratio of two sums."""
    random, ratios = np.random.default_rng(SEED), []
    for _ in range(RESAMPLES):
        rows = random.integers(len(denominators), size=len(denominators))
        if (total := denominators[rows].sum()) > 0:
            ratios.append(numerators[rows].sum() / total)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def log_loss(probabilities: Floats, truth: Ints) -> float:
    """Return the mean negative log probability of the true label, in nats."""
    return float(losses(probabilities, truth).mean())


def losses(probabilities: Floats, truth: Ints) -> Floats:
    """Return the negative log probability [n] of each product's true label, in nats."""
    true = probabilities[np.arange(len(truth)), truth]
    # A float64 softmax underflows at -745 nats; use the smallest normal number instead of 0.
    return -np.log(np.maximum(true, np.finfo(np.float64).tiny))


def reliability(confidence: Floats, correct: Bools) -> tuple[ReliabilityBin, ...]:
    """Return accuracy and mean confidence of each bin of confidence that is not empty."""
    index = _bins(confidence)
    return tuple(
        ReliabilityBin(
            low=b / BINS,
            high=(b + 1) / BINS,
            count=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(correct[inside].mean()),
        )
        for b in range(BINS)
        if (inside := index == b).any()
    )


def calibration(confidence: Floats, correct: Bools) -> Calibration:
    """Return the expected calibration error (ECE), debiased, with a test of calibration.

    The ECE of a sample is above 0 also for a calibrated model, as each bin has few products: 0.05
    on 200. Samples of a calibrated model are simulated: each product is correct with the
    probability that is its confidence (Bröcker and Smith 2007, doi:10.1175/WAF993.1). As in Kumar
    et al. 2019 (arXiv:1909.10155), the bias is subtracted from the square: the debiased ECE is the
    signed root of the squared ECE minus its mean over those samples.
    """
    order = np.argsort(_bins(confidence), kind="stable")
    confidence = confidence[order]
    starts = np.flatnonzero(np.diff(_bins(confidence), prepend=-1))

    def error(correct: Bools) -> float:
        return float(np.abs(np.add.reduceat(confidence - correct, starts)).sum() / len(confidence))

    random = np.random.default_rng(SEED)
    simulated = np.array(
        [error(random.random(len(confidence)) < confidence) for _ in range(RESAMPLES)]
    )
    ece = error(correct[order])
    excess = ece**2 - float((simulated**2).mean())
    # The same products may be correct in a sample, which is then equal except for rounding.
    as_large = int((simulated >= ece - 1e-12).sum())
    return Calibration(
        ece=ece,
        ece_debiased=math.copysign(math.sqrt(abs(excess)), excess),
        ece_p_value=(as_large + 1) / (RESAMPLES + 1),
    )


def _bins(confidence: Floats) -> Ints:
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def departments(matrix: Ints, labels: Sequence[str]) -> dict[str, DepartmentMetrics]:
    """Return the metrics of each label, from the confusion matrix (rows are the truth).

    Recall is undefined for a label without products, precision for one that is never predicted,
    and F1 if both are.
    """
    hits, support, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)

    def ratio(part: int, whole: int) -> float | None:
        return float(part / whole) if whole else None

    return {
        label: DepartmentMetrics(
            support=int(support[i]),
            precision=ratio(hits[i], predicted[i]),
            recall=ratio(hits[i], support[i]),
            f1=ratio(2 * hits[i], support[i] + predicted[i]),
        )
        for i, label in enumerate(labels)
    }

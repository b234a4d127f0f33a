"""What is measured, as pure functions of arrays.

`truth` and `predicted` are int64 [n], positions in the label set; `right` is bool [n];
`confidence` is the probability of the predicted label, float64 [n]; `probabilities` are float64
[n, labels] and rows sum to 1. Nothing here turns what can't be measured into a zero: it is None
where a label has no products to measure it on, and `require_finite` refuses the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grocer.config.stages import EvaluationConfig

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

RESAMPLES, SEED = 1000, 23
"""Bootstrap resamples, and the seed of samples and resamples."""
BINS = 10
"""Equal-width bins of confidence, of the reliability curve and of ECE."""


def measure(
    probabilities: Floats, truth: Ints, purchases: Ints, settings: EvaluationConfig
) -> dict[str, float]:
    """Every number that is told of one side of the split.

    Raises:
        FloatingPointError: a row of `probabilities` does not sum to 1, or holds NaN.
    """
    sums = probabilities.sum(axis=1)
    if len(off := np.flatnonzero(~np.isclose(sums, 1.0))):
        raise FloatingPointError(f"probabilities of row {off[0]} sum to {sums[off[0]]}, not to 1")
    predicted = probabilities.argmax(axis=1)
    right = predicted == truth
    bins = reliability(probabilities.max(axis=1), right)
    return {
        **accuracy(right, settings.confidence),
        "macro_f1": macro_f1(truth, predicted),
        "top3_accuracy": top_k_accuracy(probabilities, truth, 3),
        **weighted_accuracy(right, purchases, settings),
        "ece": expected_calibration_error(bins),
        "log_loss": log_loss(probabilities, truth),
    }


def accuracy(right: Bools, confidence: float) -> dict[str, float]:
    """Share of products that are right, with its Wilson interval."""
    from scipy.stats import binomtest

    count = int(right.sum())
    interval = binomtest(count, len(right)).proportion_ci(confidence, method="wilson")
    return {
        "products": len(right),
        "accuracy": count / len(right),
        "accuracy_low": float(interval.low),
        "accuracy_high": float(interval.high),
    }


def macro_f1(truth: Ints, predicted: Ints) -> float:
    """Mean F1 over the labels that occur in `truth` or in `predicted`, each weighing the same."""
    from sklearn.metrics import f1_score

    # A label that occurs has a denominator above 0, so no F1 is made up here.
    return float(f1_score(truth, predicted, average="macro"))


def top_k_accuracy(probabilities: Floats, truth: Ints, k: int) -> float:
    """Share of products whose label is among the `k` likeliest; ties go by the labels' order."""
    ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((ranked == truth[:, None]).any(axis=1).mean())


def weighted_accuracy(
    right: Bools, purchases: Ints, settings: EvaluationConfig
) -> dict[str, float]:
    """Share of purchases whose product is right, with a bootstrap percentile interval.

    Products are resampled, not purchases: a best-seller is one piece of evidence. Where nothing
    was bought every product counts once.
    """
    weights = purchases if purchases.sum() > 0 else np.ones_like(purchases)
    random = np.random.default_rng(SEED)
    size = len(right)
    draws = []
    for _ in range(RESAMPLES):
        rows = random.integers(size, size=size)
        if (bought := weights[rows].sum()) > 0:  # else it holds no purchase to be right about
            draws.append(weights[rows][right[rows]].sum() / bought)
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return {
        "weighted_accuracy": float(weights[right].sum() / weights.sum()),
        "weighted_accuracy_low": float(low),
        "weighted_accuracy_high": float(high),
    }


def log_loss(probabilities: Floats, truth: Ints) -> float:
    """Mean negative log probability of the true label, in nats."""
    chosen = probabilities[np.arange(len(truth)), truth]
    # A float64 softmax underflows at -745 nats; the smallest normal number stands for it.
    return float(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)).mean())


def reliability(confidence: Floats, right: Bools) -> list[dict[str, float]]:
    """How often predictions of like confidence are right; bins without products are left out."""
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return [
        {
            "low": b / BINS,
            "high": (b + 1) / BINS,
            "count": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(right[inside].mean()),
        }
        for b in range(BINS)
        if (inside := place == b).any()
    ]


def expected_calibration_error(bins: Sequence[Mapping[str, float]]) -> float:
    """Mean distance of confidence and accuracy over the bins, weighed by products (ECE)."""
    products = sum(b["count"] for b in bins)
    return sum(b["count"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / products


def coverage(confidence: Floats, right: Bools) -> list[dict[str, float]]:
    """Accuracy where only confident predictions are given, from all of them to about 5 %."""
    levels = np.quantile(confidence, np.linspace(0.0, 0.95, 20), method="lower")
    return [
        {
            "threshold": float(level),
            "coverage": float(answered.mean()),
            "accuracy": float(right[answered].mean()),
        }
        for level in np.unique(levels)
        if (answered := confidence >= level).any()
    ]


def confusion(truth: Ints, predicted: Ints, labels: int) -> Ints:
    """Counts [labels, labels]: rows are the truth, columns the predictions."""
    table = np.zeros((labels, labels), dtype=np.int64)
    np.add.at(table, (truth, predicted), 1)
    return table


def departments(table: Ints, labels: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Support, precision, recall and F1 of each label, from its confusion `table`.

    None: recall of a label without products, precision of one never predicted, F1 of both.
    """
    hits, support, predicted = np.diag(table), table.sum(axis=1), table.sum(axis=0)

    def ratio(part: int, whole: int) -> float | None:
        return float(part / whole) if whole else None

    return {
        label: {
            "support": int(support[i]),
            "precision": ratio(hits[i], predicted[i]),
            "recall": ratio(hits[i], support[i]),
            "f1": ratio(2 * hits[i], support[i] + predicted[i]),
        }
        for i, label in enumerate(labels)
    }


def mcnemar(model_right: Bools, baseline_right: Bools) -> dict[str, float]:
    """Model against baseline on the same products: exact McNemar, two-sided.

    Only the products that one has right and the other wrong tell; without any, p is 1.
    """
    from scipy.stats import binomtest

    model = int((model_right & ~baseline_right).sum())
    baseline = int((baseline_right & ~model_right).sum())
    told = model + baseline
    return {
        "products": len(model_right),
        "model_accuracy": float(model_right.mean()),
        "baseline_accuracy": float(baseline_right.mean()),
        "only_model_right": model,
        "only_baseline_right": baseline,
        "p_value": float(binomtest(model, told).pvalue) if told else 1.0,
    }


def require_finite(value: Any, path: str = "evaluation") -> None:
    """Refuse NaN and infinity anywhere inside `value`.

    Raises:
        FloatingPointError: names the first number that is not finite.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            require_finite(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            require_finite(inner, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise FloatingPointError(f"{path} is {value}: it could not be measured")

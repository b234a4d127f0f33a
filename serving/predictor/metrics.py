"""Prometheus metrics: requests, queue, forward passes, predictions, and drift.

Drift compares recent products with the bundle's evaluation: the share of each predicted department,
the confidence, and the names. A difference means that the traffic differs from the catalogue; it is
not an error by itself.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from grocer.config.deployment import ServingConfig
from grocer.inference.drift import Monitor, closest_reference, department_distance
from grocer.inference.scores import Scores
from grocer.model.linear.tfidf import TfIdf
from grocer.release.bundle import LoadedBundle

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def _metric(kind: Any, text: str, *labels: str, **options: Any) -> Callable[..., Any]:
    return partial(kind, documentation=text, labelnames=labels, **options)


_METRICS: dict[str, Callable[..., Any]] = {
    "requests": _metric(Counter, "Requests by route and status code", "route", "code"),
    "request_seconds": _metric(
        Histogram, "Duration of requests by route", "route", buckets=_SECONDS
    ),
    "items": _metric(Counter, "Products scored"),
    "tokens": _metric(Counter, "Tokens of product names scored"),
    "queue_items": _metric(Gauge, "Products waiting for a forward pass"),
    "queue_wait_seconds": _metric(Histogram, "Wait until the first forward pass", buckets=_SECONDS),
    "batch_items": _metric(Histogram, "Products per forward pass", buckets=_ITEMS),
    "forward_seconds": _metric(Histogram, "Duration of forward passes", buckets=_SECONDS),
    "scored": _metric(
        Counter,
        "Products scored, by model: language_model, alone or with the linear model, or linear, "
        "without a forward pass",
        "model",
    ),
    "predictions": _metric(Counter, "Predictions by department", "department"),
    "low_confidence": _metric(Counter, "Predictions below serving.low_confidence"),
    "confidence": _metric(Counter, "Sum of the probabilities of predictions"),
    "confidence_squared": _metric(Counter, "Sum of their squares, for the variance"),
    "reference_share": _metric(
        Gauge,
        "Share among the predictions on the test split or among purchases, whichever is closer to "
        "latest_share",
        "department",
    ),
    "latest_share": _metric(Gauge, "Share of recent predictions", "department"),
    "reference_confidence": _metric(Gauge, "Mean confidence on the test split"),
    "latest_confidence": _metric(Gauge, "Mean confidence of recent predictions"),
    "drift": _metric(
        Gauge,
        "Total variation distance of latest_share from reference_share, debiased, 0 to 1; NaN with "
        "too few predictions",
    ),
    "drift_windows": _metric(Gauge, "Complete windows of 1,000 distinct names"),
    "drift_signal": _metric(
        Gauge,
        "Mean of a signal in the latest complete window; for departments, the distance from the "
        "test split, debiased",
        "signal",
    ),
    "drift_reference": _metric(Gauge, "Mean of a signal on the test split", "signal"),
    "drift_p_value": _metric(
        Gauge,
        "p-value of the latest complete window, corrected for the numbers of signals and windows",
        "signal",
    ),
    "estimated_accuracy": _metric(
        Gauge,
        "Estimated accuracy of the latest complete window: the mean confidence (accuracy), and the "
        "95 % interval (low, high)",
        "bound",
    ),
    "ready": _metric(Gauge, "1 if the model is ready"),
    "model_info": _metric(
        Gauge, "Bundle that is served", "digest", "base", "template", "recipe", "strategy"
    ),
}


class Metrics:
    """The metrics of one predictor."""

    def __init__(
        self, bundle: LoadedBundle, config: ServingConfig, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._metrics = {
            name: create(f"grocer_{name}", registry=registry) for name, create in _METRICS.items()
        }
        self._low_confidence = config.low_confidence
        manifest = bundle.manifest
        reference = manifest.evaluation.reference
        self._references = np.array(
            [
                [shares.get(label, 0.0) for label in bundle.labels]
                for shares in (reference.departments, reference.purchases)
            ]
        )
        self._recent: deque[tuple[int, float]] = deque(maxlen=config.drift_window)
        self._counts = np.zeros(len(bundle.labels))
        self._confidence = 0.0
        self._metrics["model_info"].labels(
            bundle.digest,
            *(part["digest"] if part else "" for part in (manifest.base, manifest.template)),
            bundle.manifest.config.recipe,
            manifest.combination.strategy,
        ).set(1)
        self._metrics["reference_confidence"].set(reference.mean_confidence)
        for index, label in enumerate(bundle.labels):
            self._metrics["reference_share"].labels(label).set_function(
                lambda i=index: closest_reference(self._counts, self._references)[i]
            )
            self._metrics["latest_share"].labels(label).set_function(
                lambda i=index: self._counts[i] / max(len(self._recent), 1)
            )
        self._metrics["latest_confidence"].set_function(
            lambda: self._confidence / max(len(self._recent), 1)
        )
        self._metrics["drift"].set_function(
            lambda: department_distance(self._counts, self._references)
        )
        self._monitor = Monitor(reference.drift)

    def observe_request(self, route: str, code: int, seconds: float) -> None:
        """Count a completed or rejected request."""
        self._metrics["requests"].labels(route, str(code)).inc()
        self._metrics["request_seconds"].labels(route).observe(seconds)

    def measure_names(self, features: TfIdf) -> None:
        """Measure the names of products, too; called once the linear model is loaded."""
        self._monitor.features = features

    def observe_predictions(self, names: Sequence[str], scores: Scores) -> None:
        """Count predictions; called on the event loop."""
        if self._monitor.observe(names, scores.probabilities):
            self._set_drift()
        predicted, confidence = scores.predicted.tolist(), scores.confidence
        self._metrics["items"].inc(len(predicted))
        self._metrics["low_confidence"].inc(int((confidence < self._low_confidence).sum()))
        self._metrics["confidence"].inc(float(confidence.sum()))
        self._metrics["confidence_squared"].inc(float((confidence**2).sum()))
        for index, count in Tally(predicted).items():
            self._metrics["predictions"].labels(scores.labels[index]).inc(count)
        for index, value in zip(predicted, confidence.tolist(), strict=True):
            if len(self._recent) == self._recent.maxlen:
                oldest, removed = self._recent[0]
                self._counts[oldest] -= 1
                self._confidence -= removed
            self._recent.append((index, value))
            self._counts[index] += 1
            self._confidence += value

    def observe_ready(self, ready: bool) -> None:
        """Set whether the model is ready."""
        self._metrics["ready"].set(ready)

    def measure_queue(self, items: Callable[[], int]) -> None:
        """Measure the number of waiting products, too."""
        self._metrics["queue_items"].set_function(items)

    def observe_pass(
        self, tokens: Sequence[int], linear: int, seconds: float, waits: Sequence[float]
    ) -> None:
        """Count the products of a forward pass, and the waits of the requests that it started.

        Args:
            tokens: of each product that the language model scored; without any, there was no
                forward pass.
            linear: number of products that the linear model answered alone.
        """
        self._metrics["scored"].labels("language_model").inc(len(tokens))
        self._metrics["scored"].labels("linear").inc(linear)
        if tokens:
            self._metrics["batch_items"].observe(len(tokens))
            self._metrics["tokens"].inc(sum(tokens))
            self._metrics["forward_seconds"].observe(seconds)
        for wait in waits:
            self._metrics["queue_wait_seconds"].observe(wait)

    def _set_drift(self) -> None:
        """Set the metrics of the latest complete window."""
        window = self._monitor
        self._metrics["drift_windows"].set(window.windows)
        for bound, value in window.accuracy:
            self._metrics["estimated_accuracy"].labels(bound).set(value)
        for signal, test in window.tests.items():
            self._metrics["drift_signal"].labels(signal).set(test.value)
            self._metrics["drift_reference"].labels(signal).set(test.reference)
            self._metrics["drift_p_value"].labels(signal).set(test.p_value)

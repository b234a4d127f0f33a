"""What Prometheus is told: requests, queue, forward passes, predictions, and drift.

Drift is read against the evaluation that let the adapter serve: shares of departments and the
mean confidence on the test side, beside those of the latest answers. The two differ where the
traffic is unlike the test side, which is a question, not yet an error.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from grocer.release.bundle import Bundle

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Metrics of one predictor, in a registry that `/metrics` shows."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        low_confidence: float,
        window: int,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        def of(kind: Any, name: str, text: str, *labels: str, **more: Any) -> Any:
            return kind(f"grocer_{name}", text, labels, registry=registry, **more)

        self._labels, self._low = bundle.labels, low_confidence
        self._latest: deque[tuple[int, float]] = deque(maxlen=window)
        self._shares: Tally[int] = Tally()
        self._confidence = 0.0
        self._requests = of(Counter, "requests", "Requests, by route and status", "route", "code")
        self._seconds = of(
            Histogram, "request_seconds", "Time to an answer", "route", buckets=_SECONDS
        )
        self._items = of(Counter, "items", "Items that were answered")
        self._queue = of(Gauge, "queue_items", "Items waiting for a forward pass")
        self._wait = of(
            Histogram, "queue_wait_seconds", "Time from arrival to the first pass", buckets=_SECONDS
        )
        self._batch = of(Histogram, "batch_items", "Items in a forward pass", buckets=_SIZES)
        self._forward = of(Histogram, "forward_seconds", "Forward passes", buckets=_SECONDS)
        self._tokens = of(Counter, "tokens", "Tokens of names that were scored")
        self._predictions = of(Counter, "predictions", "Answers, by department", "department")
        self._unsure = of(Counter, "low_confidence", f"Answers below {low_confidence:g}")
        self._ready = of(Gauge, "ready", "1 once the model answers")
        self._describe(of, bundle)

    def _describe(self, of: Any, bundle: Bundle) -> None:
        info = of(Gauge, "model_info", "What is served", "digest", "base", "template", "recipe")
        base, template = bundle.manifest.base, bundle.manifest.template
        info.labels(bundle.digest, base["digest"], template["digest"], bundle.config.recipe).set(1)
        reference = bundle.manifest.evaluation.reference
        self._reference = [reference.departments.get(label, 0.0) for label in bundle.labels]
        expected = of(Gauge, "reference_share", "Share on the test side", "department")
        share = of(Gauge, "latest_share", "Share of the latest answers", "department")
        for index, label in enumerate(bundle.labels):
            expected.labels(label).set(self._reference[index])
            share.labels(label).set_function(lambda index=index: self._share(index))
        of(Gauge, "reference_confidence", "Mean confidence on the test side").set(
            reference.mean_confidence
        )
        of(Gauge, "latest_confidence", "Mean confidence of the latest answers").set_function(
            lambda: self._confidence / max(len(self._latest), 1)
        )
        of(Gauge, "drift", "Total variation between reference and latest shares").set_function(
            self.drift
        )

    def drift(self) -> float:
        """0 (the same shares) to 1 (nothing in common); 0 before the first answer."""
        if not self._latest:
            return 0.0
        gaps = [abs(self._share(i) - share) for i, share in enumerate(self._reference)]
        return sum(gaps) / 2

    def _share(self, index: int) -> float:
        return self._shares[index] / max(len(self._latest), 1)

    def answered(self, probabilities: NDArray[np.float64]) -> None:
        """Count answers; called on the event loop."""
        best, confidence = probabilities.argmax(axis=1).tolist(), probabilities.max(axis=1)
        self._items.inc(len(best))
        self._unsure.inc(int((confidence < self._low).sum()))
        for index, count in Tally(best).items():
            self._predictions.labels(self._labels[index]).inc(count)
        for index, value in zip(best, confidence.tolist(), strict=True):
            if len(self._latest) == self._latest.maxlen:
                old, gone = self._latest[0]
                self._shares[old] -= 1
                self._confidence -= gone
            self._latest.append((index, value))
            self._shares[index] += 1
            self._confidence += value

    def requested(self, route: str, code: int, seconds: float) -> None:
        """Count a request that was answered or refused."""
        self._requests.labels(route, str(code)).inc()
        self._seconds.labels(route).observe(seconds)

    def ready(self, ready: bool) -> None:
        """Say whether the model answers."""
        self._ready.set(ready)

    def queued(self, items: int) -> None:
        """Say how many items wait."""
        self._queue.set(items)

    def passed(self, items: int, tokens: int, seconds: float, waits: Sequence[float]) -> None:
        """Count a forward pass."""
        self._batch.observe(items)
        self._forward.observe(seconds)
        self._tokens.inc(tokens)
        for wait in waits:
            self._wait.observe(wait)

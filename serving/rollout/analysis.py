"""Compare a canary with the stable predictor: two snapshots of their counters give a decision.

Each signal is a hypothesis test. It fails if the predictors differ significantly, the canary is the
worse one, and the difference exceeds what is tolerated. The significance level is the error
probability divided by the number of tests of the rollout (Bonferroni's correction).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from scipy import stats
from scipy.stats.contingency import expected_freq

from grocer.artifacts.canary_decision import Signal

LOOKS = (0.25, 0.5, 1.0)
"""Shares of the required requests at which a step is tested; only the last one ends it."""
SIGNALS = 6
ERROR_PROBABILITY = 0.05
"""Maximum probability that a canary that behaves like the stable predictor is rolled back."""
SLOWER, LESS_CONFIDENT, LESS_ACCURATE, DEPARTMENTS = 1.25, 0.05, 0.02, 0.1
"""Tolerated differences: ratio of mean durations; shares of low-confidence predictions; estimated
accuracies; total variation distance of the departments. A better model moves some products."""
MIN_SLOWER_SECONDS = 0.01
"""Difference of mean durations that is always tolerated: two pods with the same model, on one node
that was busy, had means of 7 and 9 ms."""
_MIN_EXPECTED = 5
"""Minimum expected count of a cell in a chi-square test; rarer categories are pooled."""
_ROUTES = ("predict", "infer")
_FAILURE = re.compile("429|499|5..")

Sample = tuple[str, frozenset[tuple[str, str]]]
"""Name and labels of a sample in `/metrics`."""
Counters = Mapping[Sample, float]
Snapshot = Mapping[Any, Counters]
"""Counters of each process of a predictor, which start at 0 with the process."""


@dataclass(frozen=True)
class Window:
    """What a predictor did between two snapshots."""

    requests: int
    failed: int
    """Requests with the status 429, 499 (the client disconnected) or 5xx."""
    answered: int
    """Requests with the status 200."""
    seconds: float
    """Total duration of the requests."""
    durations: Mapping[str, float]
    """Requests by the upper bound of their duration in seconds."""
    items: int
    low_confidence: int
    confidence: float
    confidence_squared: float
    departments: Mapping[str, float]

    @classmethod
    def between(cls, first: Snapshot, last: Snapshot) -> Window:
        """Return the differences; a process that is only in `last` has started since `first`."""
        counts = defaultdict[Sample, float](float)
        for process, counters in last.items():
            before = first.get(process, {})
            for sample, value in counters.items():
                counts[sample] += value - before.get(sample, 0.0)

        def by(name: str, label: str = "") -> dict[str, float]:
            found = defaultdict[str, float](float)
            for (sample, labels), value in counts.items():
                values = dict(labels)
                if sample == f"grocer_{name}" and values.get("route", "predict") in _ROUTES:
                    found[values.get(label, "")] += value
            return found

        codes = by("requests_total", "code")
        return cls(
            requests=round(sum(codes.values())),
            failed=round(sum(n for code, n in codes.items() if _FAILURE.fullmatch(code))),
            answered=round(codes["200"]),
            seconds=by("request_seconds_sum")[""],
            durations=_differences(by("request_seconds_bucket", "le")),
            items=round(by("items_total")[""]),
            low_confidence=round(by("low_confidence_total")[""]),
            confidence=by("confidence_total")[""],
            confidence_squared=by("confidence_squared_total")[""],
            departments=by("predictions_total", "department"),
        )

    @property
    def independent(self) -> float:
        """Independent observations per product: products of one request may be alike."""
        return min(1.0, self.answered / self.items) if self.items else 0.0


def significance(error_probability: float, steps: int) -> float:
    """Return the significance level of one test of a rollout in `steps` steps."""
    return error_probability / (steps * len(LOOKS) * SIGNALS)


def compare(stable: Window, canary: Window, level: float) -> tuple[Signal, ...]:
    """Return all signals but `agreement`, which is not a comparison of counters."""
    tests = (error_rate, latency, low_confidence, departments, estimated_accuracy)
    return tuple(test(stable, canary, level) for test in tests)


def error_rate(stable: Window, canary: Window, level: float) -> Signal:
    """Compare the shares of failed requests by Fisher's exact test."""
    values = [each.failed / max(each.requests, 1) for each in (stable, canary)]
    counts = [(each.failed, each.requests) for each in (stable, canary)]
    return _signal("error_rate", "share of failed requests", values, _fisher(counts), level)


def latency(stable: Window, canary: Window, level: float) -> Signal:
    """Compare the durations of requests by a chi-square test on the histograms' buckets."""
    values = [each.seconds / max(each.requests, 1) for each in (stable, canary)]
    p_value = _chi_square([stable.durations, canary.durations])
    tolerated = max(values[0] * (SLOWER - 1), MIN_SLOWER_SECONDS)
    return _signal("latency", "mean seconds", values, p_value, level, tolerated)


def low_confidence(stable: Window, canary: Window, level: float) -> Signal:
    """Compare the shares of low-confidence predictions by Fisher's exact test."""
    values = [each.low_confidence / max(each.items, 1) for each in (stable, canary)]
    counts = [
        (round(each.low_confidence * each.independent), round(each.items * each.independent))
        for each in (stable, canary)
    ]
    text = "share of low-confidence predictions"
    return _signal("low_confidence", text, values, _fisher(counts), level, LESS_CONFIDENT)


def departments(stable: Window, canary: Window, level: float) -> Signal:
    """Compare the predicted departments by a chi-square test on their counts."""
    counts = [
        {name: count * each.independent for name, count in each.departments.items()}
        for each in (stable, canary)
    ]
    shares = [np.array(row) / max(sum(row), 1) for row in _rows(counts)]
    distance = float(abs(shares[0] - shares[1]).sum() / 2)
    text = "total variation distance from the departments of the stable predictor"
    return _signal("departments", text, [0.0, distance], _chi_square(counts), level, DEPARTMENTS)


def estimated_accuracy(stable: Window, canary: Window, level: float) -> Signal:
    """Compare the mean calibrated confidences by Welch's test, for large samples.

    The mean is the estimate of accuracy by CBPE (confidence-based performance estimation). It is
    valid while the calibration of the evaluation holds for the traffic.
    """
    means, variances = [], []
    for each in (stable, canary):
        means.append(each.confidence / max(each.items, 1))
        variance = max(each.confidence_squared / max(each.items, 1) - means[-1] ** 2, 0.0)
        variances.append(variance / max(each.items * each.independent, 1))
    difference, error = means[1] - means[0], sqrt(sum(variances))
    p_value = 2 * float(stats.norm.sf(abs(difference) / error)) if error else float(not difference)
    margins = ", ".join(f"±{1.96 * sqrt(variance):.4f}" for variance in variances)
    text = f"accuracy estimated by CBPE (95 % intervals {margins})"
    return _signal("estimated_accuracy", text, means, p_value, level, LESS_ACCURATE, better=1)


def agreement(same: int, names: int, expected: float, level: float) -> Signal:
    """Test by an exact binomial test whether fewer predictions agree than expected.

    Args:
        same: names for which both predict the same department.
        expected: share of the test products that both classify correctly, by the evaluation.
    """
    p_value = float(stats.binomtest(same, names, expected, alternative="less").pvalue)
    text = f"share of {names} test products with the same prediction; stable: as evaluated"
    return _signal("agreement", text, [expected, same / names], p_value, level, better=1)


def _signal(
    rule: str,
    text: str,
    values: list[float],
    p_value: float,
    level: float,
    tolerated: float = 0.0,
    *,
    better: int = -1,
) -> Signal:
    """Return a signal; `values` are those of stable and canary, higher ones better if 1."""
    stable, canary = values
    worse = better * (stable - canary) > tolerated
    return Signal(
        rule=rule,
        passed=not (worse and p_value < level),
        sentence=(
            f"{text}: canary {canary:.4g}, stable {stable:.4g}; p = {p_value:.2g}, significance "
            f"level {level:.2g}, tolerated difference {tolerated:.2g}"
        ),
        canary=canary,
        stable=stable,
        p_value=min(p_value, 1.0),
        level=level,
        tolerated=tolerated,
    )


def _differences(cumulative: Mapping[str, float]) -> dict[str, float]:
    """Return the count of each bucket from a histogram's cumulative counts."""
    bounds = sorted(cumulative, key=float)
    counts = np.diff([0.0, *(cumulative[bound] for bound in bounds)])
    return dict(zip(bounds, counts.tolist(), strict=True))


def _fisher(counts: list[tuple[int, int]]) -> float:
    """Return the two-sided p-value of Fisher's exact test for (successes, trials) of each arm."""
    table = [[successes, trials - successes] for successes, trials in counts]
    return float(stats.fisher_exact(table).pvalue)


def _rows(counts: list[dict[str, float]] | list[Mapping[str, float]]) -> list[list[float]]:
    names = sorted({name for each in counts for name in each})
    return [[each.get(name, 0.0) for name in names] for each in counts]


def _chi_square(counts: list[dict[str, float]] | list[Mapping[str, float]]) -> float:
    """Return the p-value of Pearson's test of homogeneity; 1 if there is too little data."""
    table = np.array(_rows(counts))
    if table.size == 0 or not table.sum(axis=1).all():
        return 1.0
    expected = expected_freq(table).min(axis=0)
    order = np.argsort(expected)
    table, expected = table[:, order], expected[order]
    # The rarest categories become one, which has the minimum count itself.
    pooled = int((expected < _MIN_EXPECTED).sum())
    if pooled:
        enough = int(np.searchsorted(expected.cumsum(), _MIN_EXPECTED)) + 1
        pooled = max(pooled, enough)
        table = np.column_stack([table[:, :pooled].sum(axis=1), table[:, pooled:]])
    if table.shape[1] < 2:
        return 1.0
    return float(stats.chi2_contingency(table, correction=False).pvalue)

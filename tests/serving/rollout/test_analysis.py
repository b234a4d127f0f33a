"""The comparison of canary and stable predictor, by simulated traffic."""

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from serving.rollout import analysis
from serving.rollout.analysis import LOOKS, Window, compare, latency, significance

BOUNDS = ("0.01", "0.05", "0.1", "0.5", "+Inf")
SECONDS = np.array([0.005, 0.02, 0.08, 0.3, 1.0])
DEPARTMENTS = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.03, 0.01])


def traffic(
    rng: np.random.Generator,
    requests: int,
    *,
    error: float = 0.01,
    durations: tuple[float, ...] = (0.2, 0.5, 0.2, 0.09, 0.01),
    departments: np.ndarray = DEPARTMENTS,
    confidence: float = 0.8,
    items: int = 1,
) -> Window:
    """Return a window of simulated requests, each with `items` copies of one product."""
    failed = int(rng.binomial(requests, error))
    answered = requests - failed
    buckets = rng.multinomial(requests, durations)
    labels = rng.multinomial(answered, departments) * items
    confidences = rng.beta(8 * confidence, 8 * (1 - confidence), answered)
    return Window(
        requests=requests,
        failed=failed,
        answered=answered,
        seconds=float(buckets @ SECONDS),
        durations=dict(zip(BOUNDS, buckets.tolist(), strict=True)),
        items=answered * items,
        low_confidence=int((confidences < 0.5).sum()) * items,
        confidence=float(confidences.sum()) * items,
        confidence_squared=float((confidences**2).sum()) * items,
        departments={f"d{i}": float(n) for i, n in enumerate(labels)},
    )


def plus(a: Window, b: Window) -> Window:
    """Return both windows as one."""
    values = {
        name: {key: value.get(key, 0) + getattr(b, name).get(key, 0) for key in value}
        if isinstance(value, dict)
        else value + getattr(b, name)
        for name, value in vars(a).items()
    }
    return Window(**values)


def worse(stable: Window, canary: Window, level: float = 0.001) -> list[str]:
    return [signal.rule for signal in compare(stable, canary, level) if not signal.passed]


@pytest.mark.parametrize("items", [1, 20])
def test_false_alarms_are_as_rare_as_stated(items: int) -> None:
    """A rollout of an equal bundle in three steps, with all looks, is rarely rolled back."""
    rng, rollouts, error = np.random.default_rng(5), 100, 0.2
    level, alarms = significance(error, 3), 0
    for _ in range(rollouts):
        found = []
        for percent in (5, 25, 50):
            shares = [(round(200 * (b - a)), percent) for a, b in pairwise((0, *LOOKS))]
            windows: list[Window] | None = None
            for requests, share in shares:
                new = [
                    traffic(rng, requests * (100 - share) // share, items=items),
                    traffic(rng, requests, items=items),
                ]
                windows = (
                    [plus(a, b) for a, b in zip(windows, new, strict=True)] if windows else new
                )
                found += worse(windows[0], windows[1], level)
        alarms += bool(found)
    assert alarms <= stats.binom.ppf(0.999, rollouts, error)


@pytest.mark.parametrize("items", [1, 20])
def test_p_values_of_equal_predictors_are_not_too_small(items: int) -> None:
    rng, p_values = np.random.default_rng(11), defaultdict[str, list[float]](list)
    for _ in range(300):
        windows = traffic(rng, 4000, items=items), traffic(rng, 300, items=items)
        for signal in compare(*windows, 0.01):
            p_values[signal.rule].append(signal.p_value)
    for rule, values in p_values.items():
        for level in (0.01, 0.05, 0.2):
            small = sum(value < level for value in values)
            assert small <= stats.binom.ppf(0.9999, len(values), level), rule


SHUFFLED = DEPARTMENTS[::-1]
SLOW = (0.05, 0.25, 0.4, 0.2, 0.1)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"error": 0.06}, "error_rate"),
        ({"durations": SLOW}, "latency"),
        ({"durations": (0.2, 0.5, 0.2, 0.0, 0.1)}, "latency"),
        ({"departments": SHUFFLED}, "departments"),
        ({"confidence": 0.7}, "estimated_accuracy"),
        ({"confidence": 0.7}, "low_confidence"),
    ],
)
def test_worse_canary_is_detected(changes: dict[str, object], rule: str) -> None:
    rng, level = np.random.default_rng(3), significance(0.05, 3)
    detected = Counter[str]()
    for _ in range(20):
        detected.update(worse(traffic(rng, 2000), traffic(rng, 500, **changes), level))
    assert detected[rule] >= 18


@pytest.mark.parametrize(
    "changes",
    [
        {"error": 0.0},
        {"durations": (0.8, 0.2, 0.0, 0.0, 0.0)},
        {"confidence": 0.95},
        {"departments": DEPARTMENTS + np.array([-0.04, 0.04, 0, 0, 0, 0, 0])},
    ],
)
def test_better_canary_passes_however_significant_the_difference(
    changes: dict[str, object],
) -> None:
    rng = np.random.default_rng(4)
    stable, canary = traffic(rng, 50_000), traffic(rng, 50_000, **changes)
    signals = compare(stable, canary, 0.001)
    assert min(signal.p_value for signal in signals) < 0.001
    assert worse(stable, canary) == []


def test_agreement_below_the_evaluation_is_detected() -> None:
    for same, passed in ((20, False), (118, False), (120, True), (140, True), (200, True)):
        signal = analysis.agreement(same, 200, 0.7, 0.001)
        assert (signal.rule, signal.passed) == ("agreement", passed)
        assert (signal.stable, signal.canary) == (0.7, same / 200)
        assert signal.p_value == pytest.approx(stats.binom.cdf(same, 200, 0.7))


WINDOWS = st.integers(0, 3000).flatmap(
    lambda requests: st.builds(
        traffic,
        st.integers(0, 2**32 - 1).map(np.random.default_rng),
        st.just(requests),
        error=st.sampled_from([0.0, 0.5, 1.0]),
        items=st.sampled_from([1, 7]),
    )
)


@given(WINDOWS, WINDOWS)
def test_signals_are_defined_for_any_counts(stable: Window, canary: Window) -> None:
    for signal in compare(stable, canary, 0.001):
        assert 0 <= signal.p_value <= 1
        assert signal.rule in signal.model_dump_json()


@given(WINDOWS)
def test_predictor_is_not_worse_than_itself(window: Window) -> None:
    assert worse(window, window) == []


def counters(requests: float, errors: float = 0, bread: float = 0) -> analysis.Counters:
    values = {
        ("requests_total", "route", "predict", "code", "200"): requests,
        ("requests_total", "route", "infer", "code", "503"): errors,
        ("requests_total", "route", "ready", "code", "200"): 1e6,
        ("request_seconds_bucket", "route", "predict", "le", "0.1"): requests - 1,
        ("request_seconds_bucket", "route", "predict", "le", "+Inf"): requests,
        ("request_seconds_sum", "route", "predict"): requests / 10,
        ("requests_total", "route", "infer", "code", "429"): errors * 2,
        ("requests_total", "route", "infer", "code", "499"): errors * 4,
        ("items_total",): requests * 2,
        ("low_confidence_total",): requests * 3,
        ("confidence_total",): requests * 4,
        ("confidence_squared_total",): requests * 5,
        ("predictions_total", "department", "bread"): bread,
    }
    return {
        (f"grocer_{name}", frozenset(zip(labels[::2], labels[1::2], strict=True))): value
        for (name, *labels), value in values.items()
    }


def test_window_is_the_difference_of_two_snapshots() -> None:
    first = {"a": counters(100, 5, 10), "gone": counters(50)}
    last = {"a": counters(160, 8, 30), "gone": counters(55), "started": counters(7)}
    window = Window.between(first, last)
    assert (window.requests, window.answered, window.failed) == (93, 72, 21)
    assert (window.items, window.low_confidence) == (144, 216)
    assert (window.confidence, window.confidence_squared) == (288, 360)
    assert window.departments == {"bread": 20}
    assert sum(window.durations.values()) == 72
    assert window.seconds == pytest.approx(7.2)


def test_independent_observations_are_requests() -> None:
    window = traffic(np.random.default_rng(1), 100, error=0, items=20)
    assert window.independent * window.items == pytest.approx(100)
    assert replace(window, items=0).independent == 0


def test_difference_of_milliseconds_is_tolerated() -> None:
    rng = np.random.default_rng(5)
    stable = replace(traffic(rng, 2000), seconds=2000 * 0.0066)
    canary = traffic(rng, 500, durations=SLOW)
    level = significance(0.05, 3)
    assert latency(stable, replace(canary, seconds=500 * 0.0086), level).passed
    assert not latency(stable, replace(canary, seconds=500 * 0.0266), level).passed

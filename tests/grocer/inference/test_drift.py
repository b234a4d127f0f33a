"""Drift is reported if the catalogue no longer describes the traffic, and only then."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from grocer.artifacts.drift import DriftReference
from grocer.inference import drift
from grocer.inference.drift import MIN_PREDICTIONS, closest_reference, department_distance
from grocer.model.linear.tfidf import TfIdf

RULES = Path(__file__).parents[3] / "manifests/components/monitoring/rules.yaml"
LABELS = 21


def references(random, labels=LABELS):
    """Shares of products and of purchases; bestsellers are in a few labels."""
    products = random.dirichlet(np.full(labels, 2.0))
    weights = products * random.lognormal(0.0, 1.0, labels)
    return np.array([products, weights / weights.sum()])


@pytest.fixture(scope="module")
def threshold() -> float:
    """The drift from which on the alert fires."""
    rules = yaml.safe_load(RULES.read_text())["spec"]["groups"][0]["rules"]
    (rule,) = [rule for rule in rules if rule.get("alert") == "GrocerDrift"]
    match = re.fullmatch(r"max\(grocer_drift\{namespace=\"grocer\"\}\) > (0\.\d+)", rule["expr"])
    assert match
    return float(match[1])


@given(
    st.integers(0, 2**32),
    st.sampled_from([2, LABELS, 134]),
    st.integers(MIN_PREDICTIONS, 10_000),
    st.floats(0.0, 1.0),
)
def test_traffic_of_products_or_purchases_is_not_drift(threshold, seed, labels, count, popular):
    random = np.random.default_rng(seed)
    shares = references(random, labels)
    apart = np.abs(shares[0] - shares[1]).sum() / 2
    for each in shares:
        assert department_distance(random.multinomial(count, each).astype(float), shares) < 0.1
    # A mixture is at most half of their distance away from the closer one.
    mixed = popular * shares[1] + (1 - popular) * shares[0]
    measured = department_distance(random.multinomial(count, mixed).astype(float), shares)
    assert measured < apart / 2 + 0.1
    assert apart > 2 * (threshold - 0.1) or measured < threshold


@given(st.integers(0, 2**32), st.integers(MIN_PREDICTIONS, 10_000), st.floats(0.5, 1.0))
def test_traffic_of_another_catalogue_fires_the_alert(threshold, seed, count, share):
    """At least half of the traffic is of a label that was rare in the catalogue."""
    random = np.random.default_rng(seed)
    shares = references(random)
    rare = shares.max(axis=0).argmin()
    traffic = (1 - share) * shares[random.integers(2)]
    traffic[rare] += share
    assert department_distance(random.multinomial(count, traffic).astype(float), shares) > threshold


def test_popular_traffic_is_far_from_the_shares_of_products(threshold):
    """Without the reference of purchases, the alert would fire."""
    products, purchases = np.array([0.2, 0.3, 0.5]), np.array([0.56, 0.2, 0.24])
    counts = np.random.default_rng(0).multinomial(5000, purchases).astype(float)
    assert department_distance(counts, np.array([products])) > threshold
    assert department_distance(counts, np.array([products, purchases])) < 0.02


def test_distance_is_debiased():
    """134 aisles and 1,000 predictions: by chance alone, the distance is about 0.1."""
    random = np.random.default_rng(0)
    shares = references(random, 134)[:1]
    samples = [random.multinomial(1000, shares[0]).astype(float) for _ in range(50)]
    raw = [np.abs(counts / 1000 - shares[0]).sum() / 2 for counts in samples]
    assert np.mean(raw) > 0.1
    assert np.mean([department_distance(counts, shares) for counts in samples]) < 0.03


def test_drift_of_few_predictions_is_undefined():
    shares = np.array([[0.5, 0.5], [0.9, 0.1]])
    assert math.isnan(department_distance(np.zeros(2), shares))
    assert math.isnan(department_distance(np.array([0.0, MIN_PREDICTIONS - 1]), shares))
    assert department_distance(np.array([0.0, MIN_PREDICTIONS]), shares) == pytest.approx(
        0.5, abs=0.01
    )


def test_closest_reference_is_the_first_without_predictions():
    shares = np.array([[0.5, 0.5], [0.9, 0.1]])
    assert closest_reference(np.zeros(2), shares).tolist() == [0.5, 0.5]
    assert closest_reference(np.array([8.0, 2.0]), shares).tolist() == [0.9, 0.1]


WORDS = [f"{first}{last}" for first in ("alpha", "brown", "citr", "dulce") for last in range(50)]


def catalogue(count, seed, words=WORDS):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(words, 3)) for _ in range(count)]


@pytest.fixture(scope="module")
def features() -> TfIdf:
    return TfIdf.fit(catalogue(2000, 0, WORDS[:190]))


def signals(features, names, seed, mean=0.9, shares=(0.5, 0.3, 0.2)):
    random = np.random.default_rng(seed)
    confidence = 0.5 + random.beta(9 * (2 * mean - 1), 9 * (2 - 2 * mean), len(names)) / 2
    predicted = random.choice(3, len(names), p=shares)
    probabilities = np.tile((1 - confidence[:, None]) / 2, (1, 3))
    probabilities[np.arange(len(names)), predicted] = confidence
    return drift.measure(names, probabilities, features)


@pytest.fixture(scope="module")
def known(features) -> DriftReference:
    purchases = np.random.default_rng(0).lognormal(0.0, 1.0, 800)
    return drift.reference(signals(features, catalogue(800, 1), 1), purchases, 8000)


def test_names_are_measured_by_the_vocabulary(features):
    probabilities = np.array([[0.7, 0.3], [0.4, 0.6], [1.0, 0.0], [0.5, 0.5]])
    names = ["alpha1 ALPHA2", "alpha1 zzz", "alhpa1", "?"]
    measured = drift.measure(names, probabilities, features)
    assert measured["confidence"][:, 0].tolist() == [0.7, 0.6, 1.0, 0.5]
    assert measured["new_words"][:, 0].tolist() == [0.0, 0.5, 1.0, 0.0]
    known, half, misspelled, _ = measured["names"][:, 0]
    assert known == 0.0
    assert 0.0 < half < 1.0
    assert 0.0 < misspelled < 1.0
    assert measured["departments"].tolist() == [[1, 0], [0, 1], [1, 0], [1, 0]]
    assert set(drift.measure(names, probabilities, None)) == {"confidence", "departments"}


def test_reference_has_the_means_of_products_and_of_purchases(monkeypatch):
    """Products that are purchased 3 times and once; a tenth of the products is in a window."""
    monkeypatch.setattr(drift, "WINDOW", 1)
    values = {"confidence": np.array([[0.5], [1.0]])}
    known = drift.reference(values, np.array([3.0, 1.0]), 10)
    assert known.signals["confidence"].products == (0.75,)
    assert known.signals["confidence"].purchases[0] == pytest.approx(0.63, abs=0.005)
    assert known.signals["confidence"].variance == 0.0625  # of products, the larger one
    assert known.effective_purchases == pytest.approx(1.63, abs=0.01)
    for purchases, catalogue in ((np.zeros(2), 10), (np.array([3.0, 1.0]), 1)):
        assert drift.reference(values, purchases, catalogue).effective_purchases == 2.0


def test_windows_of_the_same_catalogue_give_no_alarm(features, known):
    """By chance alone, the smallest of 300 p-values that are not corrected is about 0.003."""
    for window in range(1, 101):
        products = signals(features, catalogue(500, 100 + window), 100 + window)
        tests = drift.compare(products, known, window)
        assert not any(each.drift for each in tests.values())


def test_purchases_and_mixtures_are_not_drift():
    """A tenth of the products, of a lower confidence, is purchased nine times as often."""
    popular = np.arange(4000) < 400
    values = {"confidence": np.where(popular, 0.7, 0.9)[:, None]}
    known = drift.reference(values, np.where(popular, 9.0, 1.0), 10**6)
    random = np.random.default_rng(3)
    for share, drifts in ((0.1, False), (0.3, False), (0.5, False), (0.8, True)):
        traffic = np.where(random.random((2000, 1)) < share, 0.7, 0.9)
        assert drift.compare({"confidence": traffic}, known)["confidence"].drift == drifts


@pytest.mark.parametrize(
    ("words", "mean", "shares", "expected"),
    [
        (WORDS, 0.75, (0.5, 0.3, 0.2), {"confidence"}),
        (WORDS, 0.98, (0.5, 0.3, 0.2), set()),  # more confident is not drift
        ([f"{word}x" for word in WORDS], 0.9, (0.5, 0.3, 0.2), {"new_words", "names"}),
        (WORDS, 0.9, (0.0, 0.3, 0.7), {"departments"}),
    ],
)
def test_shift_is_detected_by_its_signal(features, known, words, mean, shares, expected):
    products = signals(features, catalogue(1000, 4, words), 4, mean, shares)
    tests = drift.compare(products, known)
    assert {name for name, each in tests.items() if each.drift} == expected


def test_p_values_are_corrected_for_the_number_of_windows(features, known):
    products = signals(features, catalogue(300, 5), 5, 0.86)
    first, tenth = (drift.compare(products, known, each)["confidence"].p_value for each in (1, 10))
    once = drift.compare(products, known)["confidence"].p_value
    assert first == pytest.approx(2 * once)
    assert tenth == pytest.approx(110 * once)


def test_tail_bounds_the_exact_probability_of_a_binomial():
    share, count = 0.02, 500
    for hits in range(12, 60):
        bound = drift._tail(hits / count - share, share * (1 - share) / count, 1 / count)
        assert stats.binom.sf(hits - 1, count, share) <= bound <= 1.0
    assert drift._tail(0.0, 0.1, 0.1) == 1.0


def test_interval_has_the_accuracy_of_calibrated_predictions(known):
    random, covered = np.random.default_rng(6), 0
    for _ in range(300):
        confidence = random.beta(5, 1, 400)
        accuracy = (random.random(400) < confidence).mean()
        estimate = drift.estimated_accuracy(confidence, known)
        assert estimate.accuracy == pytest.approx(confidence.mean())
        covered += estimate.low <= accuracy <= estimate.high
    assert covered >= 0.93 * 300


def test_monitor_counts_distinct_names_and_forgets_them(features, known):
    monitor = drift.Monitor(known)
    monitor.features = features
    some = np.tile([0.9, 0.05, 0.05], (10_000, 1))
    assert not monitor.observe(["Alpha1 milk", "alpha1  MILK"] * 5, some[:10])
    assert not monitor.observe([], some[:0])
    assert len(monitor._keys) == 1
    many = [f"alpha1 {number}" for number in range(10_000)]
    monitor.observe(many, some)
    assert len(monitor._keys) == 1 + drift.SAMPLE
    while not monitor.observe(many[: drift.SAMPLE], some[: drift.SAMPLE]):
        many = many[drift.SAMPLE :]
    assert monitor.windows == 1
    assert monitor.tests["new_words"].drift
    assert not monitor.tests["confidence"].drift
    assert not monitor._keys
    assert not monitor._parts

"""The drift alert fires if the catalogue no longer describes the traffic, and only then."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from grocer.config.deployment import ServingConfig
from grocer.inference.scores import Scores
from serving.predictor.drift import MIN_PREDICTIONS, closest_reference, drift
from serving.predictor.metrics import Metrics

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
        assert drift(random.multinomial(count, each).astype(float), shares) < 0.1
    # A mixture is at most half of their distance away from the closer one.
    mixed = popular * shares[1] + (1 - popular) * shares[0]
    measured = drift(random.multinomial(count, mixed).astype(float), shares)
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
    assert drift(random.multinomial(count, traffic).astype(float), shares) > threshold


def test_popular_traffic_is_far_from_the_shares_of_products(threshold):
    """Without the reference of purchases, the alert would fire."""
    products, purchases = np.array([0.2, 0.3, 0.5]), np.array([0.56, 0.2, 0.24])
    counts = np.random.default_rng(0).multinomial(5000, purchases).astype(float)
    assert drift(counts, np.array([products])) > threshold
    assert drift(counts, np.array([products, purchases])) < 0.02


def test_distance_is_debiased():
    """134 aisles and 1,000 predictions: by chance alone, the distance is about 0.1."""
    random = np.random.default_rng(0)
    shares = references(random, 134)[:1]
    samples = [random.multinomial(1000, shares[0]).astype(float) for _ in range(50)]
    raw = [np.abs(counts / 1000 - shares[0]).sum() / 2 for counts in samples]
    assert np.mean(raw) > 0.1
    assert np.mean([drift(counts, shares) for counts in samples]) < 0.03


def test_drift_of_few_predictions_is_undefined():
    shares = np.array([[0.5, 0.5], [0.9, 0.1]])
    assert math.isnan(drift(np.zeros(2), shares))
    assert math.isnan(drift(np.array([0.0, MIN_PREDICTIONS - 1]), shares))
    assert drift(np.array([0.0, MIN_PREDICTIONS]), shares) == pytest.approx(0.5, abs=0.01)


def test_closest_reference_is_the_first_without_predictions():
    shares = np.array([[0.5, 0.5], [0.9, 0.1]])
    assert closest_reference(np.zeros(2), shares).tolist() == [0.5, 0.5]
    assert closest_reference(np.array([8.0, 2.0]), shares).tolist() == [0.9, 0.1]


def test_metric_describes_the_latest_predictions(stub_bundle):
    registry, labels = CollectorRegistry(), stub_bundle.labels
    evaluation = stub_bundle.manifest.evaluation
    purchases = dict(zip(labels, (0.0, 0.8, 0.2), strict=True))
    reference = evaluation.reference.model_copy(update={"purchases": purchases})
    changed = evaluation.model_copy(update={"reference": reference})
    manifest = stub_bundle.manifest.model_copy(update={"evaluation": changed})
    bundle = dataclasses.replace(stub_bundle, manifest=manifest)
    metrics = Metrics(bundle, ServingConfig(), registry)

    def observe(shares, count):
        rows = np.repeat(np.arange(len(labels)), np.array(shares) * count)
        metrics.observe_predictions(Scores.flat(labels, np.eye(len(labels))[rows]))
        return registry.get_sample_value("grocer_drift")

    assert len(labels) == 3
    assert math.isnan(observe([1, 0, 0], 300))
    assert observe([1, 0, 0], 2700) == pytest.approx(2 / 3, abs=0.01)
    assert observe([1, 1, 1], 2000) < 0.35
    window = ServingConfig.drift_window
    assert observe([1, 1, 1], math.ceil(window / 3)) < 0.01
    assert observe([0, 8, 2], window // 10) == 0.0
    for label, share in purchases.items():
        for name in ("grocer_latest_share", "grocer_reference_share"):
            assert registry.get_sample_value(name, {"department": label}) == pytest.approx(share)

"""Metrics of drift describe the latest predictions, as aggregates."""

import dataclasses
import math

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from grocer.config.deployment import ServingConfig
from grocer.inference import drift
from grocer.inference.scores import Scores
from grocer.model.linear.tfidf import TfIdf
from serving.predictor.metrics import Metrics


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
        names = [f"product {row}" for row in rows]
        scores = Scores.flat(labels, np.eye(len(labels))[rows])
        metrics.observe_predictions(names, scores)
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


def test_metrics_of_a_window_hold_no_names(stub_bundle):
    registry = CollectorRegistry()
    metrics = Metrics(stub_bundle, ServingConfig(), registry)
    metrics.measure_names(TfIdf.fit(["Organic Milk"]))
    scores = Scores.flat(stub_bundle.labels, np.array([[0.4, 0.3, 0.3]]))
    for number in range(drift.WINDOW):
        assert registry.get_sample_value("grocer_drift_windows") == 0
        metrics.observe_predictions([f"secret{number}"], scores)
    assert registry.get_sample_value("grocer_drift_windows") == 1
    accuracy = registry.get_sample_value("grocer_estimated_accuracy", {"bound": "accuracy"})
    assert accuracy == pytest.approx(0.4)
    for signal in ("confidence", "new_words", "names", "departments"):
        sample = registry.get_sample_value("grocer_drift_p_value", {"signal": signal})
        assert sample <= drift.ERROR_PROBABILITY
    assert b"secret" not in generate_latest(registry)

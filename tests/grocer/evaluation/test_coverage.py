"""Thresholds are chosen on the validation products only, and measured on the test products."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from grocer.evaluation import coverage


def sample(seed, products=400):
    """Confidences of a calibrated model, and which predictions are correct."""
    random = np.random.default_rng(seed)
    confidence = random.beta(4, 1, products)
    return confidence, random.random(products) < confidence


def test_curve_starts_at_one_and_falls():
    confidence = np.linspace(0.2, 1.0, 100)
    points = coverage.curve(confidence, confidence, confidence > 0.6)
    assert dict(points[0]) == {"threshold": 0.0, "coverage": 1.0, "accuracy": 0.5}
    assert points[-1].accuracy == 1.0
    covered = [point.coverage for point in points]
    assert covered == sorted(covered, reverse=True)


def test_threshold_of_the_curve_that_no_product_reaches_is_omitted():
    points = coverage.curve(np.array([0.2, 0.9]), np.array([0.3, 0.4]), np.array([True, False]))
    assert [point.threshold for point in points] == [0.0, 0.2]


@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_thresholds_do_not_depend_on_the_test_products(seed, other):
    validation = sample(seed)
    one = coverage.operating_points(validation, sample(other), 0.95)
    confidence, correct = sample(other + 1, 50)
    two = coverage.operating_points(validation, (confidence, ~correct), 0.95)
    assert [each.threshold for each in one] == [each.threshold for each in two]
    assert [each.required_accuracy for each in one] == list(coverage.REQUIRED)


@given(st.integers(0, 2**32), st.sampled_from([0.8, 0.9, 0.95]))
def test_threshold_is_the_lowest_whose_accuracy_suffices(seed, required):
    confidence, correct = sample(seed, 120)
    confidence = confidence.round(1)  # many are equal

    def low(level):
        covered = correct[confidence >= level]
        interval = binomtest(int(covered.sum()), len(covered)).proportion_ci(method="wilson")
        return interval.low

    suffice = [level for level in np.unique(confidence) if low(level) >= required]
    assert coverage.threshold(confidence, correct, required, 0.95) == min(suffice, default=None)


@pytest.mark.parametrize("required", [0.9, 0.95])
def test_accuracy_on_test_is_that_required_for_most_samples(required):
    """The best threshold by accuracy on validation alone would miss it for half of them."""
    chosen = [coverage.threshold(*sample(seed, 1000), required, 0.95) for seed in range(40)]
    confidence, correct = sample(100, 100_000)
    missed = [
        level is not None and correct[confidence >= level].mean() < required for level in chosen
    ]
    assert sum(missed) <= 4
    assert sum(level is not None for level in chosen) >= 20


def test_accuracy_that_no_threshold_reaches_is_none():
    confidence = np.linspace(0.1, 1.0, 100)
    wrong = np.zeros(100, dtype=bool)
    points = coverage.operating_points((confidence, wrong), (confidence, ~wrong), 0.95)
    assert {(each.threshold, each.coverage, each.accuracy) for each in points} == {
        (None, 0.0, None)
    }


def test_operating_point_is_measured_on_test():
    confidence = np.linspace(0.1, 1.0, 400)
    right = np.ones(400, dtype=bool)
    test = np.array([0.05, 0.5, 0.6, 0.7]), np.array([True, True, True, False])
    point = coverage.operating_points((confidence, right), test, 0.95)[0]
    assert point.threshold == pytest.approx(0.1)
    assert point.coverage == 0.75
    assert (point.accuracy.products, point.accuracy.accuracy) == (3, pytest.approx(2 / 3))

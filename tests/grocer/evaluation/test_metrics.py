"""Metrics agree with reference values, and an undefined metric is None."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from grocer.config.stages import EvaluationConfig
from grocer.evaluation import metrics

SETTINGS = EvaluationConfig()


def first_correct(correct: int, products: int) -> metrics.Bools:
    return np.arange(products) < correct


@pytest.mark.parametrize(
    ("correct", "products", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (900, 1000, 0.8799, 0.9171),
    ],
)
def test_accuracy_has_the_wilson_interval(correct, products, low, high):
    result = metrics.accuracy(first_correct(correct, products), 0.95)
    assert result["products"] == products
    assert result["accuracy"] == correct / products
    assert result["accuracy_low"] == pytest.approx(low, abs=2e-4)
    assert result["accuracy_high"] == pytest.approx(high, abs=2e-4)


def test_errors_in_clusters_widen_the_interval():
    """Ten brands of 30 products: all products of two are wrong, or two in ten of each."""
    brands = np.repeat(np.arange(10), 30)
    clustered, spread = brands >= 2, np.arange(300) % 10 >= 2
    wilson = metrics.accuracy(clustered, 0.95)
    assert wilson == metrics.accuracy(spread, 0.95)

    def interval(correct, clusters):
        return tuple(metrics.cluster_interval(correct, clusters, 0.95).values())

    low, high = interval(clustered, brands)
    assert low < wilson["accuracy_low"] - 0.1
    assert low < 0.8 < high
    assert interval(spread, brands) == pytest.approx((0.8, 0.8))
    # With one product in each cluster, it is the bootstrap interval of independent products.
    low, high = interval(clustered, np.arange(300))
    assert low == pytest.approx(wilson["accuracy_low"], abs=0.01)
    assert high == pytest.approx(wilson["accuracy_high"], abs=0.01)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=20))
def test_interval_over_clusters_contains_the_accuracy(products):
    correct, clusters = map(np.array, zip(*products, strict=True))
    interval = metrics.cluster_interval(correct, clusters, 0.95)
    assert 0 <= interval["cluster_low"] <= correct.mean() <= interval["cluster_high"] <= 1


def test_macro_f1_includes_a_label_that_is_only_predicted():
    truth, predicted = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    assert metrics.macro_f1(truth, predicted) == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_top_k_breaks_ties_by_label_order_and_is_one_with_at_most_k_labels():
    uniform = np.full((4, 4), 0.25)
    assert metrics.top_k_accuracy(uniform, np.arange(4), 3) == 0.75
    assert metrics.top_k_accuracy(np.array([[0.9, 0.1]]), np.array([1]), 3) == 1.0


def test_bestseller_widens_the_interval_of_weighted_accuracy():
    correct = first_correct(30, 60)
    uniform = metrics.weighted_accuracy(correct, np.ones(60, dtype=np.int64), 0.95)
    purchases = np.ones(60, dtype=np.int64)
    purchases[0] = 600
    skewed = metrics.weighted_accuracy(correct, purchases, 0.95)
    assert uniform["weighted_accuracy"] == 0.5
    assert skewed["weighted_accuracy"] == pytest.approx(629 / 659)

    def width(metric: dict[str, float]) -> float:
        return metric["weighted_accuracy_high"] - metric["weighted_accuracy_low"]

    assert width(skewed) > width(uniform) > 0


def test_weights_are_uniform_without_purchases():
    result = metrics.weighted_accuracy(first_correct(3, 4), np.zeros(4, dtype=np.int64), 0.95)
    assert result["weighted_accuracy"] == 0.75


def test_reliability_omits_empty_bins_and_includes_confidence_one():
    bins = metrics.reliability(np.array([0.55, 0.95, 1.0]), np.array([False, True, True]))
    assert [(b.low, b.count, b.accuracy) for b in bins] == [(0.5, 1, 0.0), (0.9, 2, 1.0)]


def calibration(confidence, correct) -> metrics.Calibration:
    return metrics.calibration(np.asarray(confidence), correct)


def test_ece_is_the_weighted_distance_between_confidence_and_accuracy():
    result = calibration([0.8] * 10 + [0.6] * 10, first_correct(10, 20))
    assert result.ece == pytest.approx((0.2 + 0.6) / 2)
    assert result.ece_p_value < 0.01
    assert calibration([1.0] * 20, first_correct(20, 20)).model_dump() == {
        "ece": 0.0,
        "ece_debiased": 0.0,
        "ece_p_value": 1.0,
    }


def samples(products, overconfidence=0.0):
    """Calibrations of models that are correct with (1 - overconfidence) of their confidence."""
    for seed in range(30):
        random = np.random.default_rng(seed)
        confidence = random.beta(6, 1.2, products)
        yield calibration(confidence, random.random(products) < (1 - overconfidence) * confidence)


def test_debiased_ece_of_a_calibrated_model_is_zero_on_average():
    measured = list(samples(200))
    assert np.mean([each.ece for each in measured]) > 0.04
    assert abs(np.mean([each.ece_debiased for each in measured])) < 0.015
    assert sum(each.ece_p_value < 0.05 for each in measured) <= 4
    assert max(each.ece_debiased for each in measured) < 0.1, "the default maximum of the gate"


@pytest.mark.parametrize("products", [200, 2000])
def test_debiased_ece_of_a_miscalibrated_model_is_its_miscalibration(products):
    measured = list(samples(products, overconfidence=0.12))
    # The mean confidence is 6 / 7.2.
    assert np.mean([each.ece_debiased for each in measured]) == pytest.approx(0.1, abs=0.015)


def test_departments_agree_with_scikit_learn():
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 4, 200), random.integers(0, 4, 200)
    departments = metrics.departments(confusion_matrix(truth, predicted), list("abcd"))
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted)
    for i, name in enumerate("abcd"):
        assert departments[name].precision == pytest.approx(precision[i])
        assert departments[name].recall == pytest.approx(recall[i])
        assert departments[name].f1 == pytest.approx(f1[i])
        assert departments[name].support == support[i]


def test_undefined_department_metrics_are_none():
    table = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0]])
    departments = metrics.departments(table, ["a", "b", "c"])
    assert dict(departments["b"]) == {"support": 0, "precision": 0.0, "recall": None, "f1": 0.0}
    assert dict(departments["c"]) == {"support": 0, "precision": None, "recall": None, "f1": None}


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(2, 6))
def test_metrics_are_valid_and_consistent(seed, size, labels):
    """`SideMetrics` itself refuses NaN, Inf and shares out of range."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(labels, 0.3), size)
    truth, purchases = random.integers(0, labels, size), random.integers(0, 9, size)
    result = metrics.measure(probabilities, truth, purchases, truth, SETTINGS)
    assert result.accuracy_low <= result.accuracy <= result.accuracy_high
    assert result.accuracy <= result.top3_accuracy


def test_probabilities_that_do_not_sum_to_one_are_rejected():
    probabilities = np.array([[0.5, 0.5], [np.nan, 1.0]])
    with pytest.raises(FloatingPointError, match="row 1"):
        metrics.measure(probabilities, np.array([0, 1]), np.array([1, 1]), ["a", "b"], SETTINGS)

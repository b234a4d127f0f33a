"""Baselines learn from training products, and a random row split leaks."""

import numpy as np
import pytest

from grocer.config.stages import EvaluationConfig
from grocer.evaluation import baselines
from tests.fixtures.predictions import products

SETTINGS = EvaluationConfig()


def test_majority_of_equals_is_the_first_by_name():
    assert baselines.majority(["dairy", "bakery", "bakery"]) == "bakery"
    assert baselines.majority(["dairy", "bakery"]) == "bakery"


def test_linear_model_learns_words_and_parts_of_words():
    table = products()
    predicted = baselines.linear_svm(
        table["product_name"], table["department"], ["Whole Milk", "Buttermilk", "Applesauce"]
    )
    assert predicted.tolist() == ["dairy eggs", "dairy eggs", "produce"]


def test_baseline_is_compared_with_the_model():
    comparison = baselines.compare(
        ["a", "b", "b"], ["a", "a", "b"], np.array([True, True, False]), SETTINGS
    )
    assert comparison.accuracy == pytest.approx(2 / 3)
    assert comparison.macro_f1 == pytest.approx(2 / 3)
    assert comparison.paired.model_accuracy == pytest.approx(2 / 3)
    assert (comparison.paired.only_model_right, comparison.paired.only_baseline_right) == (1, 1)


@pytest.mark.parametrize("predicted", [["a"], ["a", "b", "a"]])
def test_baseline_on_other_products_is_rejected(predicted):
    with pytest.raises(ValueError, match="predictions for 2 products"):
        baselines.compare(["a", "b"], predicted, np.array([True, True]), SETTINGS)


def test_lookup_table_on_a_row_split_reproduces_the_reference_study():
    random = np.random.default_rng(0)
    purchases = np.ceil(random.pareto(0.9, 20_000)).astype(np.int64).clip(0, 5_000)
    departments = random.choice(["a", "b", "c"], 20_000)
    leakage = baselines.row_split_leakage(departments, purchases)
    # The product of a test row is unseen if all its other rows are test rows too.
    unseen = baselines.TEST_ROWS ** (purchases - 1.0).clip(0)
    expected = 1 - (purchases * unseen).sum() / purchases.sum()
    assert leakage.share_of_test_products_seen_in_training == pytest.approx(expected, abs=0.005)
    assert leakage.test_accuracy > leakage.share_of_test_products_seen_in_training > 0.9
    assert leakage.train_accuracy == 1.0


@pytest.mark.parametrize("purchases", [0, 1])
def test_row_split_of_products_bought_once_does_not_leak(purchases):
    departments = ["a"] * 300 + ["b"] * 200
    leakage = baselines.row_split_leakage(departments, [purchases] * 500)
    assert leakage.share_of_test_products_seen_in_training == 0.0
    assert leakage.test_accuracy == pytest.approx(0.6, abs=0.1)

"""Baselines are honest rivals, and the study's way of measuring is shown to leak."""

import numpy as np
import pytest

from grocer.config.stages import EvaluationConfig
from grocer.evaluation import baselines
from tests.fixtures.predictions import products


def test_the_majority_of_equals_is_the_first_by_name():
    assert baselines.majority(["dairy", "bakery", "bakery"]) == "bakery"
    assert baselines.majority(["dairy", "bakery"]) == "bakery"


def test_the_linear_model_learns_from_words_and_from_parts_of_words():
    table = products()
    answered = baselines.linear(
        table["product_name"], table["department"], ["Whole Milk", "Buttermilk", "Applesauce"]
    )
    assert answered.tolist() == ["dairy eggs", "dairy eggs", "produce"]


def test_the_linear_model_takes_names_without_words():
    assert baselines.linear(["Milk", "Bread", "%"], ["a", "b", "b"], ["", "…"]).shape == (2,)


def test_a_baseline_is_paired_with_the_model():
    found = baselines.compare(
        ["a", "b", "b"], ["a", "a", "b"], np.array([True, True, False]), EvaluationConfig()
    )
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx(2 / 3)
    assert found["paired"]["model_accuracy"] == pytest.approx(2 / 3)
    assert (found["paired"]["only_model_right"], found["paired"]["only_baseline_right"]) == (1, 1)


def test_a_lookup_table_on_split_purchases_scores_as_the_study_did():
    random = np.random.default_rng(0)
    purchases = np.ceil(random.pareto(0.9, 20_000)).astype(np.int64).clip(0, 5_000)
    departments = random.choice(["a", "b", "c"], 20_000)
    found = baselines.as_the_study_measured(departments, purchases, seed=1)
    # A row's product is unseen where all the other rows of it are test rows too.
    unseen = baselines.ROWS_FOR_TEST ** (purchases - 1.0).clip(0)
    expected = 1 - (purchases * unseen).sum() / purchases.sum()
    assert found["leaking"] is True
    assert found["share_of_test_products_seen_in_training"] == pytest.approx(expected, abs=0.005)
    assert found["test_accuracy"] > found["share_of_test_products_seen_in_training"] > 0.9
    assert found["train_accuracy"] == 1.0


@pytest.mark.parametrize("purchases", [0, 1])
def test_products_bought_once_leak_nothing(purchases):
    departments = ["a"] * 300 + ["b"] * 200
    found = baselines.as_the_study_measured(departments, [purchases] * 500, seed=1)
    assert found["share_of_test_products_seen_in_training"] == 0.0
    assert found["test_accuracy"] == pytest.approx(0.6, abs=0.1)

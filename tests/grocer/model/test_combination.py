"""Combination of two models: fitted weights, the cascade's threshold, and degenerate inputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grocer.artifacts.combination import Combination
from grocer.model.combination import (
    BOUNDS,
    MAX_LOST,
    NO_THRESHOLD,
    calibrated_log_loss,
    choose_threshold,
    combine,
    fit_combinations,
    fit_weight,
    linear_answers,
    log_loss,
    scale,
    select,
)
from grocer.model.paired_difference import upper_bound

STRATEGIES = {"adapter", "ensemble", "cascade", "linear"}
SEEDS = st.integers(0, 2**32 - 1)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def sample(seed, products=200, labels=4, skill=(1.0, 1.0)):
    """Return log-probabilities of two models that see the truth through independent noise."""
    random = np.random.default_rng(seed)
    truth = random.integers(labels, size=products)
    signal = np.eye(labels)[truth] * 3
    logs = [
        log_softmax(s * signal + random.normal(size=(products, labels)) * random.uniform(0.5, 3))
        for s in skill
    ]
    return *logs, truth


def combination(strategy, **weights):
    defaults = {"adapter": 0.0, "linear": 0.0, "linear_alone": 0.0, "threshold": None}
    values = defaults | weights
    return Combination(strategy=strategy, aisle_temperature=1.0, **values)


CASCADE = combination("cascade", adapter=0.5, linear=0.7, linear_alone=1.0, threshold=0.6)


@pytest.mark.parametrize("weight", [0.5, 1.0, 3.0])
def test_fit_recovers_a_known_weight(weight):
    random = np.random.default_rng(1)
    calibrated = log_softmax(random.normal(size=(20_000, 5)) * 2)
    truth = (np.exp(calibrated).cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    assert fit_weight(log_softmax(calibrated / weight), truth) == pytest.approx(weight, rel=0.05)


def test_fit_ignores_impossible_labels():
    logs = np.array([[np.log(0.9), np.log(0.1), -np.inf]] * 100)
    weight = fit_weight(logs, np.arange(100) % 2)
    assert weight == BOUNDS[0]
    assert (scale(logs, weight)[:, 2] == 0).all()


@pytest.mark.parametrize("products", [1, 5, 50])
def test_prior_counts_as_one_product_if_there_are_no_errors(products):
    logs = log_softmax(np.array([[2.0, 0.0, 0.0]] * products))
    truth = np.zeros(products, dtype=int)

    def slope(weight):  # of the log-loss of all products, in the opposite direction
        return pytest.approx(4 * products / (np.exp(2 * weight) + 2), rel=1e-3)

    weight = fit_weight(logs, truth)
    assert weight - 1 == slope(weight)
    assert scale(logs, weight)[0, 0] < 1 - 1 / 1000
    both = fit_combinations(logs, logs, truth, seed=0)["ensemble"]
    assert both.adapter - weight / 2 == slope(both.adapter + both.linear)


@given(SEEDS, st.floats(*BOUNDS))
def test_scaled_rows_sum_to_one_and_keep_their_ranking(seed, weight):
    logs = log_softmax(np.random.default_rng(seed).normal(size=(5, 7)) * 4)
    probabilities = scale(logs, weight)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(5))
    assert (probabilities.argmax(axis=1) == logs.argmax(axis=1)).all()


def test_weight_one_changes_nothing():
    logs = log_softmax(np.array([[0.3, -2.0, 1.1]]))
    assert scale(logs, 1.0) == pytest.approx(np.exp(logs))


@pytest.mark.parametrize(
    ("weight", "second_row", "expected"),
    [(10.0, [-1e5, 0.0], [0.0, 1.0]), (1.0, [-1e5, -1e5], [0.5, 0.5])],
)
def test_extreme_log_probabilities_neither_overflow_nor_underflow(weight, second_row, expected):
    probabilities = scale(np.array([[0.0, -1e5], second_row]), weight)
    assert probabilities.tolist() == [[1.0, 0.0], expected]


def test_float32_input_is_summed_in_float64():
    probabilities = scale(np.zeros((1, 3), dtype=np.float32), 1.5)
    assert probabilities.dtype == np.float64
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_weight_must_be_positive(weight):
    with pytest.raises(ValueError, match="weight"):
        scale(np.zeros((1, 2)), weight)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 60), st.integers(2, 5), st.tuples(*[st.sampled_from([-1, 0, 1])] * 2))
def test_ensemble_is_at_least_as_good_as_each_model_where_it_was_fitted(
    seed, products, labels, skill
):
    adapter, linear, truth = sample(seed, products, labels, skill)
    fitted = fit_combinations(adapter, linear, truth, seed=0)
    assert set(fitted) == STRATEGIES
    losses = {name: log_loss(each, adapter, linear, truth) for name, each in fitted.items()}
    assert losses["ensemble"] <= min(losses["adapter"], losses["linear"]) + 1e-12
    assert losses["adapter"] == pytest.approx(calibrated_log_loss(adapter, truth))
    for each in fitted.values():
        probabilities = combine(each, adapter, linear)
        assert probabilities.sum(axis=1) == pytest.approx(np.ones(products))
        assert max(each.adapter, each.linear, each.linear_alone) <= BOUNDS[1]


def test_ensemble_without_weight_of_one_model_is_the_other_one_scaled():
    adapter, linear, _ = sample(0)
    only_adapter = combination("ensemble", adapter=0.7)
    only_linear = combination("ensemble", linear=0.7)
    assert combine(only_adapter, adapter, linear) == pytest.approx(scale(adapter, 0.7))
    assert combine(only_linear, adapter, linear) == pytest.approx(scale(linear, 0.7))


def test_two_complementary_models_are_better_together():
    adapter, linear, truth = sample(3, products=2000, skill=(0.5, 0.5))
    fitted = fit_combinations(adapter, linear, truth, seed=0)
    alone = min(log_loss(fitted[name], adapter, linear, truth) for name in ("adapter", "linear"))
    assert log_loss(fitted["ensemble"], adapter, linear, truth) < alone - 0.05
    assert select(fitted, adapter, linear, truth) in ("ensemble", "cascade")


@pytest.mark.parametrize(
    ("products", "labels"), [(1, 2), (2, 2), (50, 3)], ids=["one product", "two products", "many"]
)
@pytest.mark.parametrize("perfect", [True, False])
@pytest.mark.parametrize("same_label", [True, False])
def test_degenerate_validation_gives_bounded_weights(products, labels, perfect, same_label):
    truth = np.zeros(products, int) if same_label else np.arange(products) % labels
    logs = (
        log_softmax(np.eye(labels)[truth] * 20.0)
        if perfect
        else np.log(np.full((products, labels), 1 / labels))
    )
    fitted = fit_combinations(logs, logs, truth, seed=0)
    for each in fitted.values():
        assert BOUNDS[0] <= each.adapter + each.linear <= 2 * BOUNDS[1]
        assert np.isfinite(log_loss(each, logs, logs, truth))
    assert fitted["cascade"].threshold == NO_THRESHOLD  # too few products to bound the loss
    assert select(fitted, logs, logs, truth) == "linear"


@pytest.mark.parametrize(
    ("strategy", "adapter", "linear"),
    [("adapter", True, False), ("linear", False, True), ("ensemble", True, True)],
)
def test_model_without_weight_is_not_needed(strategy, adapter, linear):
    first, second, _ = sample(0)
    weights = {"adapter": 0.5 * adapter, "linear": 0.5 * linear}
    combined = combine(
        combination(strategy, **weights), first if adapter else None, second if linear else None
    )
    assert combined.shape == first.shape
    with pytest.raises(ValueError, match="needs the scores of another model"):
        combine(combination(strategy, **weights), None, None)


def test_cascade_takes_confident_rows_from_the_linear_model_alone():
    adapter, linear, _ = sample(5)
    alone = linear_answers(CASCADE, linear)
    assert 0 < alone.sum() < len(alone)
    assert (alone == (scale(linear, 1.0).max(axis=1) >= 0.6)).all()
    expected = combine(combination("ensemble", adapter=0.5, linear=0.7), adapter, linear)
    expected[alone] = scale(linear, 1.0)[alone]
    unread = np.where(alone[:, None], np.nan, adapter)
    assert combine(CASCADE, unread, linear) == pytest.approx(expected)


def test_linear_model_answers_all_none_or_confident_rows():
    _, linear, _ = sample(0)
    certain = np.array([[0.0, -1e5]])
    assert linear_answers(combination("linear", linear=1.0), linear).all()
    assert not linear_answers(combination("ensemble", linear=1.0), linear).any()
    never = CASCADE.model_copy(update={"threshold": NO_THRESHOLD})
    assert not linear_answers(never, certain).any()
    assert linear_answers(CASCADE, certain).all()


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_bound_of_lost_accuracy_holds_on_the_half_that_chose_the_threshold(seed):
    adapter, linear, truth = sample(seed, products=4000)
    fitted = fit_combinations(adapter, linear, truth, seed=1)["cascade"]
    half = np.random.default_rng(1).permutation(4000)[2000:]
    ensemble = fitted.model_copy(
        update={"strategy": "ensemble", "threshold": None, "linear_alone": 0.0}
    )
    right, without = (
        combine(each, adapter[half], linear[half]).argmax(axis=1) == truth[half]
        for each in (fitted, ensemble)
    )
    lost, gained = (without & ~right).sum(), (right & ~without).sum()
    bound = float(upper_bound(lost, gained, 2000, 0.05))
    assert bound <= MAX_LOST or fitted.threshold == NO_THRESHOLD
    assert (lost - gained) / 2000 <= bound + 1e-12


def test_threshold_is_the_lowest_that_loses_little():
    """The linear model errs below a confidence of 0.7, the ensemble never."""
    confidence = np.linspace(0.51, 0.99, 4000)
    linear = np.column_stack([confidence, 1 - confidence])
    truth = (confidence < 0.7).astype(int)
    ensemble = np.eye(2)[truth]
    threshold = choose_threshold(linear, ensemble, truth)
    assert 0.69 < threshold <= 0.7001


def test_no_threshold_is_below_one_that_loses_too_much():
    """The linear model errs between 0.8 and 0.81 only, the ensemble below 0.75 only."""
    confidence = np.linspace(0.51, 0.99, 4000)
    linear = np.column_stack([confidence, 1 - confidence])
    truth = ((confidence > 0.8) & (confidence < 0.81)).astype(int)
    ensemble = np.eye(2)[np.where(confidence < 0.75, 1 - truth, truth)]
    threshold = choose_threshold(linear, ensemble, truth)
    assert 0.8 < threshold < 0.81


def test_products_of_equal_confidence_are_answered_by_the_same_model():
    linear = np.tile([0.8, 0.2], (4000, 1))
    truth = np.repeat([0, 1], 2000)
    assert choose_threshold(linear, np.eye(2)[truth], truth) == NO_THRESHOLD
    assert choose_threshold(linear, linear, truth) == pytest.approx(0.8)


@pytest.mark.parametrize("products", [0, 1, 1300])
def test_too_few_products_give_no_threshold(products):
    probabilities = np.tile([0.9, 0.1], (products, 1))
    assert choose_threshold(probabilities, probabilities, np.zeros(products, int)) == NO_THRESHOLD


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({"linear": 0.5, "cascade": 0.5, "adapter": 0.5, "ensemble": 0.5}, "linear"),
        ({"linear": 0.52, "cascade": 0.505, "adapter": 0.5, "ensemble": 0.5}, "cascade"),
        ({"linear": 0.52, "cascade": 0.52, "adapter": 0.505, "ensemble": 0.5}, "adapter"),
        ({"linear": 0.52, "cascade": 0.52, "adapter": 0.52, "ensemble": 0.5}, "ensemble"),
        ({"adapter": 0.3, "ensemble": 0.5}, "adapter"),
    ],
)
def test_cheapest_strategy_within_a_tie_is_selected(monkeypatch, losses, expected):
    combinations = {
        "adapter": combination("adapter", adapter=1.0),
        "linear": combination("linear", linear=1.0),
        "ensemble": combination("ensemble", adapter=0.5, linear=0.5),
        "cascade": CASCADE,
    }
    monkeypatch.setattr(
        "grocer.model.combination.log_loss", lambda each, *arguments: losses[each.strategy]
    )
    candidates = {name: each for name, each in combinations.items() if name in losses}
    logs = np.log([[0.5, 0.5]])
    assert select(candidates, logs, logs, np.array([0])) == expected


def test_cascade_in_which_the_linear_model_never_answers_alone_is_not_selected():
    adapter, linear, truth = sample(3, products=200)
    cascade = CASCADE.model_copy(update={"threshold": NO_THRESHOLD})
    ensemble = combination("ensemble", adapter=0.5, linear=0.7)
    chosen = select({"cascade": cascade, "ensemble": ensemble}, adapter, linear, truth)
    assert chosen == "ensemble"

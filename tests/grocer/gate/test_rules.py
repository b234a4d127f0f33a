"""Which evaluations pass the gate: every rule at its limit, and no pass without metrics."""

import numpy as np
import pytest
from pydantic import ValidationError

from tests.fixtures.evaluations import (
    MATRIX,
    NEWER,
    changed,
    comparison,
    evaluation,
    judged,
    mcnemar,
    policy,
    reason,
    with_linear,
)


def test_good_adapter_passes_every_rule():
    decision = judged(evaluation())
    assert decision.passed
    assert [each.rule for each in decision.reasons] == [
        *("test_products", "accuracy", "gap"),
        *("baseline:majority", "baseline:linear", "baseline:base_model"),
        *("recall", "ece", "champion", "measured", "consistent"),
    ]


ACCURACY = 272 / 300
EYE = np.eye(15, dtype=int)
SMALL = (17 * EYE + np.roll(EYE, 1, axis=1)).tolist()  # 18 products of each of 15 labels
TIED = {"linear": (20, 20)}  # the baseline is as good as the model
BEHIND = {"linear": (10, 25)}  # it is 0.05 better


@pytest.mark.parametrize(
    ("rule", "passed", "values", "limits"),
    [
        ("test_products", True, {}, {"min_test_products": 300}),
        ("test_products", False, {}, {"min_test_products": 301}),
        ("test_products", True, {}, {"min_test_products": 299}),
        ("accuracy", True, {"low": 0.85}, {"min_accuracy": 0.85}),
        ("accuracy", True, {"low": 0.8501}, {"min_accuracy": 0.85}),
        ("accuracy", False, {"low": 0.8499}, {"min_accuracy": 0.85}),
        ("accuracy", True, {"cluster_low": 0.85}, {"min_accuracy": 0.85}),
        ("accuracy", False, {"cluster_low": 0.8499}, {"min_accuracy": 0.85}),
        ("accuracy", False, {"low": 0.8499, "cluster_low": 0.9}, {"min_accuracy": 0.85}),
        ("gap", True, {"train": 950}, {"max_train_test_gap": 0.95 - ACCURACY}),
        ("gap", True, {"train": 949}, {"max_train_test_gap": 0.95 - ACCURACY}),
        ("gap", False, {"train": 951}, {"max_train_test_gap": 0.95 - ACCURACY}),
        ("gap", True, {"train": 500}, {"max_train_test_gap": 0.0}),
        ("gap", True, {"train": 1000}, {}),  # only reported
        ("recall", True, {"matrix": [[140, 10], [10, 140]]}, {}),  # two departments are enough
        ("baseline:linear", True, {"strategy": "linear"}, {}),  # not compared with itself
        ("baseline:linear", True, {"linear": (6, 0)}, {}),  # p = 0.031
        ("baseline:linear", False, {"linear": (5, 0)}, {}),  # p = 0.0625
        ("baseline:linear", False, {"linear": (6, 0), "confidence": 1 - mcnemar(6, 0)}, {}),
        ("baseline:linear", False, {"linear": (0, 20)}, {}),  # significantly worse
        ("baseline:linear", False, TIED, {}),
        ("baseline:linear", False, BEHIND, {}),
        ("baseline:linear", True, TIED | {"log_loss": (0.3, 0.4, 0.049)}, {}),
        ("baseline:linear", False, TIED | {"log_loss": (0.3, 0.4, 0.05)}, {}),
        ("baseline:linear", True, {"linear": (21, 20), "log_loss": (0.3, 0.4, 0.01)}, {}),
        ("baseline:linear", False, {"linear": (19, 20), "log_loss": (0.3, 0.4, 0.01)}, {}),
        ("baseline:linear", False, BEHIND | {"log_loss": (0.3, 0.4, 0.0)}, {}),
        ("baseline:linear", False, TIED | {"log_loss": (0.4, 0.4, 0.01)}, {}),
        ("baseline:linear", False, TIED | {"log_loss": (0.5, 0.4, 0.01)}, {}),
        ("baseline:linear", True, {"linear": (6, 0), "log_loss": (0.5, 0.4, 0.01)}, {}),
        ("recall", True, {}, {"min_department_recall": 0.9}),
        ("recall", True, {}, {"min_department_recall": 0.89}),
        ("recall", False, {}, {"min_department_recall": 0.91}),
        ("recall", False, {"matrix": [[17, 3, 0], *MATRIX[1:]]}, {"min_department_recall": 0.86}),
        ("recall", True, {"matrix": [[16, 3, 0], *MATRIX[1:]]}, {"min_department_recall": 0.86}),
        ("ece", True, {"ece": (0.1, 0.01)}, {"max_ece": 0.1}),
        ("ece", True, {"ece": (0.099, 0.01)}, {"max_ece": 0.1}),
        ("ece", False, {"ece": (0.101, 0.01)}, {"max_ece": 0.1}),
        ("ece", False, {"ece": (0.101, 0.049)}, {"max_ece": 0.1}),
        ("ece", True, {"ece": (0.101, 0.05)}, {"max_ece": 0.1}),  # not significant
        ("ece", True, {"ece": (-0.01, 0.9)}, {"max_ece": 0.0}),
        ("champion", True, {"champion": (7, 0)}, {}),  # p = 0.016; the level is 0.025
        ("champion", False, {"champion": (6, 0)}, {}),  # p = 0.031
        ("champion", False, {"champion": (11, 0), "confidence": 1 - 2 * mcnemar(11, 0)}, {}),
        ("champion", True, {"champion": (11, 0), "confidence": 1 - 3 * mcnemar(11, 0)}, {}),
        ("champion", False, {"champion": (6, 5)}, {}),
        ("champion", True, {"champion": (6, 5)}, NEWER | {"champion_margin": 0.05}),
        ("champion", False, {"champion": (6, 5)}, NEWER | {"champion_margin": 0.02}),
        ("champion", False, {"champion": (5, 20)}, NEWER | {"champion_margin": 0.05}),
        ("champion", True, {"champion": (30, 5)}, NEWER | {"champion_margin": 0.0}),
        ("champion", False, {"champion": (5, 5)}, {}),
        ("champion", False, {"champion": (0, 0)}, {}),
        ("champion", False, {"champion": (0, 20)}, {}),
    ],
)
def test_rule_at_above_and_below_its_limit(rule, passed, values, limits):
    decision = judged(evaluation(**values), policy(**limits))
    assert reason(decision, rule).passed is passed
    assert decision.passed is passed, "no other rule decides here"


def test_binary_rounding_of_decimal_fractions_does_not_fail_the_gap():
    matrix = [[83, 8, 9], [10, 83, 7], [8, 9, 83]]
    assert 0.93 - 0.83 > 0.1
    limits = policy(max_train_test_gap=0.1)
    assert reason(judged(evaluation(matrix, train=930), limits), "gap").passed
    assert not reason(judged(evaluation(matrix, train=931), limits), "gap").passed


def test_only_baselines_of_the_policy_are_required():
    content = evaluation(linear=(0, 20))
    assert not judged(content, policy()).passed
    assert judged(content, policy(baselines=("majority",))).passed
    content["baselines"] = {}
    decision = judged(content, policy(baselines=("majority",)))
    assert reason(decision, "measured").sentence == (
        "Missing or invalid metrics: 1 of 130: baselines.majority."
    )
    assert judged(content, policy(baselines=())).passed


WITH_CHAMPION = "p < 0.0083 in comparison number 2 of these products"
SECOND = {"champion": (5, 5), "number": 2}
STATED = [
    ("test_products", {}, {}, ["300", "200"]),
    ("accuracy", {}, {}, ["95 %", "Wilson", "0.877", "0.800"]),
    ("accuracy", {"cluster_low": 0.812}, {}, ["bootstrap over first words", "0.812", "0.800"]),
    ("gap", {}, {}, ["0.043", "no maximum"]),
    ("gap", {}, {"max_train_test_gap": 0.1}, ["0.043", "maximum 0.100"]),
    ("baseline:majority", {}, {}, ["300", "0.907 vs 0.333, p < 0.001", "p < 0.05"]),
    ("baseline:linear", {}, {}, ["0.907 vs 0.807, p < 0.001", "0.300 vs 0.400, p = 0.200"]),
    ("baseline:linear", BEHIND, {}, ["0.907 vs 0.957, p = 0.017", "0.300 vs 0.400, p = 0.200"]),
    ("baseline:linear", {"strategy": "linear"}, {}, ["skipped"]),
    ("baseline:base_model", {}, {}, ["200", "0.905 vs 0.330, p < 0.001", "p < 0.05"]),
    ("recall", {}, {}, ["3 departments", "20", "0.900 in bulk", "minimum 0.300"]),
    ("recall", {"matrix": [[94, 3, 3], *MATRIX[1:]]}, {}, [" 0.900 in pets ("]),
    (
        "recall",
        {},
        {"min_department_recall": 0.91},
        ["2 of 3 departments", "0.900 in bulk, 0.900 in pets", "minimum 0.91"],
    ),
    (
        "recall",
        {"matrix": SMALL, "labels": list(map(str, range(15)))},
        {},
        ["20", "skipped", "0.300", "15 of 15"],
    ),
    ("ece", {}, {}, ["0.020", "0.100", "p = 0.010", "p < 0.05"]),
    ("ece", {"ece": (-0.05, 0.9)}, {}, [": 0.000", "0.100"]),
    ("ece", {"ece": (0.10004, 0.0009)}, {"max_ece": 0.1}, ["0.10004", "0.10000", "p < 0.001"]),
    ("champion", {}, {}, ["skipped"]),
    ("champion", SECOND, {}, ["0.907 vs 0.907, p = 1.000", WITH_CHAMPION]),
    ("champion", {"champion": (11, 0), "number": 2}, {}, ["0.907 vs 0.870, p < 0.001"]),
    ("measured", {}, {}, ["0 of 167"]),
    ("consistent", {}, {}, ["0"]),
]


@pytest.mark.parametrize(("rule", "values", "limits", "stated"), STATED)
def test_reason_states_value_and_limit(rule, values, limits, stated):
    sentence = reason(judged(evaluation(**values), policy(**limits)), rule).sentence
    assert [text for text in stated if text not in sentence] == []


@pytest.mark.parametrize(
    ("low", "text"),
    [
        (0.84996, "0.84996 (minimum 0.85000)"),
        (0.85 - 1e-11, "0.84999999999 (minimum 0.85000000000)"),
        (0.85 - 1e-12, "0.85000000000 (minimum 0.85000000000)"),
        (0.85, "0.850 (minimum 0.850)"),
    ],
)
def test_value_is_shown_with_enough_digits_to_differ_from_the_limit(low, text):
    accuracy = reason(judged(evaluation(low=low), policy(min_accuracy=0.85)), "accuracy")
    assert accuracy.sentence.endswith(f": {text}.")
    assert accuracy.passed is (low >= 0.85)


def test_of_many_low_recalls_the_lowest_five_are_listed():
    matrix = [[0] * 9 for _ in range(9)]
    for index in range(9):
        matrix[index][index], matrix[index][index - 1] = index, 100 - index
    aisles = [f"aisle {number}" for number in range(9)]
    content = evaluation(matrix, labels=aisles, linear=(0, 0)) | {"label": "aisle"}
    content["baselines"] = {}
    recall = reason(judged(content, policy(min_department_recall=0.3)), "recall")
    assert recall.sentence == (
        "Recall of 9 of 9 aisles with at least 20 test products: 0.000 in aisle 0, 0.010 in "
        "aisle 1, 0.020 in aisle 2, 0.030 in aisle 3, 0.040 in aisle 4, and 4 more (minimum 0.3)."
    )


def test_undefined_recall_counts_as_zero():
    content = changed(evaluation(), ("departments", "pets", "recall"), None)
    assert "0.000 in pets" in reason(judged(content), "recall").sentence


def test_comparison_on_one_product_is_judged():
    content = with_linear(evaluation(), comparison(1, 1, 1, 0))
    linear = reason(judged(content), "baseline:linear")
    assert "on the same 1 products: 1.000 vs 0.000" in linear.sentence


def test_equal_models_rarely_replace_the_champion():
    """In 50 years of weekly runs, at most 1 in 20 years. The more accurate one would always win."""
    random = np.random.default_rng(0)
    replaced = more_accurate = 0
    for _ in range(50):
        discordant = random.binomial(300, 0.1, size=52)
        won = random.binomial(discordant, 0.5)
        pairs = list(zip(won.tolist(), (discordant - won).tolist(), strict=True))
        more_accurate += any(won > lost for won, lost in pairs)
        replaced += any(
            champion_passes(pair, number)
            for number, pair in enumerate(pairs, 1)
            if mcnemar(*pair) < 0.05
        )
    assert more_accurate == 50
    assert replaced <= 50 * 0.05


def champion_passes(pair, number=1, *, uncounted=False, new=None, **limits):
    """Return whether the rule passes in this comparison, with pairs on 200 new products."""
    content = evaluation(champion=pair, number=number)
    content["champion"]["new_products"] = new and comparison(180, new[0], *new[1:])["paired"]
    if uncounted:
        content["champion"]["number"] = None
    return reason(judged(content, policy(min_test_products=200, **limits)), "champion").passed


@pytest.mark.parametrize(("number", "discordant"), [(1, 7), (2, 8), (3, 9), (7, 12), (52, 17)])
def test_each_comparison_has_a_lower_level(number, discordant):
    """With 0 of n pairs lost, p is 2^(1 - n); the level is 0.05 / (number · (number + 1))."""
    assert 2.0 ** (1 - discordant) < 0.05 / (number * (number + 1)) < 2.0 ** (2 - discordant)
    assert champion_passes((discordant, 0), number)
    assert not champion_passes((discordant - 1, 0), number)


def test_comparisons_that_are_not_counted_share_the_error_rate():
    assert champion_passes((12, 0), 60, uncounted=True)
    assert not champion_passes((11, 0), 60, uncounted=True)


@pytest.mark.parametrize(
    ("new", "passes"), [((200, 8, 0), True), ((200, 7, 0), False), ((199, 8, 0), False)]
)
def test_new_products_are_a_fresh_test(new, passes):
    """Only the first comparison with this champion used them, at half of the error rate."""
    assert not champion_passes((8, 0), 60)
    assert champion_passes((8, 0), 60, new=new) is passes


def test_new_products_do_not_excuse_lower_accuracy_on_all():
    assert champion_passes((8, 8), new=(200, 8, 0))
    assert not champion_passes((8, 9), new=(200, 8, 0))


def test_new_products_halve_the_level_on_all_products():
    assert champion_passes((7, 0))
    assert not champion_passes((7, 0), new=(200, 0, 0))
    assert champion_passes((8, 0), new=(200, 0, 0))


def test_new_products_are_stated():
    content = evaluation(champion=(8, 0), number=60)
    content["champion"]["new_products"] = comparison(180, 200, 8, 0)["paired"]
    sentence = reason(judged(content), "champion").sentence
    assert "p < 6.8e-06 in comparison number 60 of these products" in sentence
    assert "p < 0.013 on the 200 products that were not in its catalogue: 0.900" in sentence


def test_margin_of_the_champion_is_stated_with_its_reason():
    limits = policy(champion_margin=0.05, **NEWER)
    sentence = reason(judged(evaluation(champion=(6, 5)), limits), "champion").sentence
    assert sentence.endswith(
        "of these products; or a lower bound of the difference of at least -0.050: -0.021). Reason "
        "for the margin: newer data."
    )
    assert judged(evaluation(champion=(6, 5)), limits).policy.champion_margin == 0.05


def test_margin_of_the_champion_is_not_a_point_estimate():
    """A classifier that is worse by the margin rarely replaces the champion."""
    random = np.random.default_rng(0)
    limits = policy(champion_margin=0.02, **NEWER)
    worse = [tuple(map(int, random.multinomial(300, [0.02, 0.04, 0.94])[:2])) for _ in range(200)]
    assert sum(won - lost >= -0.02 * 300 for won, lost in worse) > 80
    assert not any(
        reason(judged(evaluation(champion=pair, number=7), limits), "champion").passed
        for pair in set(worse)
    )


def test_margin_of_the_champion_requires_a_reason():
    with pytest.raises(ValidationError, match=r"gate\.champion_margin_reason"):
        policy(champion_margin=0.01)


def test_labels_with_too_few_test_products_are_counted():
    """Also if the labels are aisles."""
    content = evaluation([[90, 5, 5], [4, 92, 4], [0, 4, 15]], train=900) | {"label": "aisle"}
    recall = reason(judged(content), "recall").sentence
    assert recall.endswith(" Exempt, with fewer test products: 1 of 3.")
    assert "of 2 aisles with at least 20 test products" in recall
    assert "Exempt" not in reason(judged(evaluation()), "recall").sentence


def test_champion_must_be_compared_on_every_test_product():
    content = evaluation(champion=(30, 5))
    content["champion"] |= comparison(180, 200, 30, 5)
    champion = reason(judged(content), "champion")
    assert not champion.passed
    assert champion.sentence == "Champion: compared on 200 of 300 test products."


@pytest.mark.parametrize("strategy", ["adapter", "linear"])
@pytest.mark.parametrize("name", ["linear", "majority"])
def test_missing_baseline_fails_its_rule(strategy, name):
    content = evaluation(strategy=strategy)
    del content["baselines"][name]
    decision = judged(content)
    missing = [each for each in decision.failures if each.rule == f"baseline:{name}"]
    assert [each.sentence for each in missing] == [f"Metric unavailable: baselines.{name}."]
    assert not decision.passed


@pytest.mark.parametrize("strategy", ["adapter", "ensemble", "cascade"])
def test_every_other_classifier_is_compared_with_the_linear_model(strategy):
    content = evaluation(strategy=strategy, linear=(0, 0), log_loss=(0.3, 0.3, 1.0))
    assert [each.rule for each in judged(content).failures] == ["baseline:linear"]


@pytest.mark.parametrize("strategy", ["adapter", "linear"])
def test_missing_test_of_the_log_loss_fails(strategy):
    content = evaluation(strategy=strategy)
    content["baselines"]["linear"]["paired_log_loss"] = None
    decision = judged(content)
    assert [each.rule for each in decision.failures] == ["baseline:linear", "measured"]
    missing = "baselines.linear.paired_log_loss."
    assert all(each.sentence.endswith(missing) for each in decision.failures)
    assert judged(content, policy(baselines=("majority",))).passed


def test_tie_with_a_baseline_fails_whatever_p_is():
    content = evaluation(linear=(20, 20))
    content["baselines"]["linear"]["paired"]["p_value"] = 0.001
    linear = reason(judged(content), "baseline:linear")
    assert not linear.passed
    assert "p = 0.001;" in linear.sentence


def test_p_just_below_a_thousandth_is_not_rounded_up():
    content = evaluation()
    content["baselines"]["linear"]["paired"]["p_value"] = 0.00099
    assert ", p < 0.001; " in reason(judged(content), "baseline:linear").sentence

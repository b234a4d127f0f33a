"""The gate fails closed: missing, invalid and contradicting metrics fail the decision."""

import math

import pytest

from grocer.gate import consistency
from tests.fixtures.evaluations import (
    COMPLETE,
    LENIENT,
    MATRIX,
    NUMBERS,
    PATHS,
    SHARES,
    changed,
    comparison,
    evaluation,
    judged,
    parents,
    parse,
    policy,
    reason,
    value_at,
    with_linear,
)

LINEAR = ("linear",)
NEVER_PREDICTED = [[0, 50, 50], [0, 96, 4], [0, 4, 96]]
# Keyed by label, but read by monitoring only.
OPTIONAL = {
    ("reference", kind, name)
    for kind in ("departments", "purchases")
    for name in ("bulk", "dairy", "pets")
}


def new_products(*counts):
    return comparison(*counts)["paired"]


def contradictions(content, baselines=LINEAR):
    return consistency.contradictions(parse(content), baselines)


@pytest.mark.parametrize("path", [*PATHS, *parents(PATHS)], ids=".".join)
def test_gate_fails_when_a_metric_is_missing(path):
    assert judged(COMPLETE).passed
    decision = judged(changed(COMPLETE, path))
    if path in OPTIONAL:
        assert decision.passed
        return
    assert not decision.passed
    assert any(path[-1] in each.sentence for each in decision.failures)


@pytest.mark.parametrize("path", NUMBERS, ids=".".join)
def test_gate_fails_when_a_metric_is_not_a_number_in_range(path):
    for value in (None, math.nan, math.inf, -math.inf, -1, "1", True, [], {}):
        decision = judged(changed(COMPLETE, path, value))
        assert not decision.passed, value
        assert path[-1] in reason(decision, "measured").sentence


@pytest.mark.parametrize("path", SHARES, ids=".".join)
def test_gate_fails_when_a_share_is_above_one(path):
    assert not judged(changed(COMPLETE, path, 1.5)).passed


@pytest.mark.parametrize("path", [("slices",), ("reliability",)])
def test_gate_names_nan_in_a_list(path):
    decision = judged(changed(COMPLETE, path, [{"accuracy": math.nan}]))
    assert f"{'.'.join(path)}.0.accuracy: " in reason(decision, "measured").sentence


@pytest.mark.parametrize(
    "path",
    [
        *(("metrics", side, "products") for side in ("train", "validation", "test")),
        *((*owner, "products") for owner in (("baselines", "linear"), ("champion",))),
        *((*owner, "paired", "products") for owner in (("baselines", "linear"), ("champion",))),
    ],
    ids=".".join,
)
def test_gate_fails_when_no_products_were_measured(path):
    decision = judged(changed(COMPLETE, path, 0))
    assert not decision.passed
    assert f"{'.'.join(path)}: " in reason(decision, "measured").sentence


def test_department_without_test_products_is_reported():
    content = evaluation([[96, 4, 0], [4, 96, 0], [0, 0, 0]])
    assert content["departments"]["pets"]["recall"] is None
    decision = judged(content)
    assert decision.passed
    assert reason(decision, "recall").sentence.endswith(" No test product in 1: pets.")
    assert "No test product" not in reason(judged(COMPLETE), "recall").sentence


@pytest.mark.parametrize("support", [0, 1])
def test_support_that_contradicts_the_confusion_matrix_fails(support):
    """A department cannot be exempted by its support alone."""
    decision = judged(changed(COMPLETE, ("departments", "bulk", "support"), support))
    assert [each.rule for each in decision.failures] == ["consistent"]


@pytest.mark.parametrize("metric", ["recall", "f1"])
def test_gate_fails_when_a_department_metric_is_undefined(metric):
    decision = judged(changed(COMPLETE, ("departments", "dairy", metric), None))
    assert not decision.passed
    assert f"1 of 183: departments.dairy.{metric}." in reason(decision, "measured").sentence


def test_undefined_metric_after_a_department_without_products_is_found():
    content = changed(COMPLETE, ("departments", "bulk", "support"), 0)
    decision = judged(changed(content, ("departments", "dairy", "recall"), None))
    assert "departments.dairy.recall" in reason(decision, "measured").sentence


def test_precision_is_undefined_only_for_a_label_that_is_never_predicted():
    limits = policy(min_accuracy=0.5, min_department_recall=0.0)
    content = evaluation(NEVER_PREDICTED, linear=(40, 10))
    content["baselines"]["majority"] = comparison(192, 300, 100, 8)
    assert content["departments"]["bulk"]["precision"] is None
    assert judged(content, limits).passed
    decision = judged(changed(content, ("departments", "dairy", "precision"), None), limits)
    assert "departments.dairy.precision" in reason(decision, "measured").sentence
    assert not decision.passed


@pytest.mark.parametrize("count", [1, 5, 6, 11])
def test_first_five_missing_metrics_are_listed(count):
    content = evaluation()
    names = list(content["metrics"]["train"])
    for name in names[:count]:
        del content["metrics"]["train"][name]
    sentence = reason(judged(content), "measured").sentence
    assert sentence.startswith(f"Missing or invalid metrics: {count}: metrics.train.products: ")
    assert [f"metrics.train.{name}: Field required" in sentence for name in names] == [
        i < min(count, 5) for i in range(len(names))
    ]
    assert (f"; and {count - 5} more." in sentence) is (count > 5)


@pytest.mark.parametrize("content", [{}, {"schema": 5}, {**COMPLETE, "schema": 4}, [], None])
def test_invalid_evaluation_fails_every_rule(content):
    decision = judged(content)
    assert decision.reasons
    assert not any(each.passed for each in decision.reasons)
    rules = [each.rule for each in decision.reasons]
    assert rules[0] == "measured", "it says why"
    assert set(rules) == {each.rule for each in judged(COMPLETE).reasons}
    assert reason(decision, "accuracy").sentence == (
        "Metric unavailable: the evaluation is invalid."
    )
    assert decision.digests == {}
    assert decision.policy == LENIENT


def rounded(value, digits):
    """The evaluation with each float rounded to `digits` decimals."""
    if isinstance(value, dict):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    return round(value, digits) if isinstance(value, float) else value


def test_accuracies_of_six_digits_are_consistent_and_of_three_are_not():
    matrix = [[89, 5, 6], [4, 92, 4], [6, 4, 90]]  # 271 of 300: not a decimal fraction
    content = evaluation(matrix, champion=(20, 10))
    assert contradictions(rounded(content, 6)) == []
    assert contradictions(rounded(content, 3)) == [
        "recall by department does not add up to test accuracy",
        "champion: accuracies contradict the discordant pairs",
    ]


@pytest.mark.parametrize(
    ("path", "contradiction"),
    [
        (("departments", "pets", "recall"), "recall by department does not add up to test acc"),
        (
            ("departments", "pets", "recall"),
            "confusion matrix contradicts support or recall of pets",
        ),
        (("baselines", "linear", "accuracy"), "linear: paired accuracy differs from accuracy"),
        (("baselines", "linear", "paired", "baseline_accuracy"), "linear: accuracies contradict"),
        (("baselines", "linear", "paired", "model_accuracy"), "linear: paired accuracy of the mod"),
        (("champion", "paired", "model_accuracy"), "champion: paired accuracy of the model"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_one_product_of_300_is_a_contradiction(path, contradiction, sign):
    value = value_at(COMPLETE, path)
    size = 100 if path[0] == "departments" else 300
    assert contradictions(changed(COMPLETE, path, value + sign * 1e-7)) == []
    faults = contradictions(changed(COMPLETE, path, value + sign / size))
    assert any(contradiction in each for each in faults)


@pytest.mark.parametrize("side", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("name", "sign", "contradiction"),
    [
        ("accuracy_low", 1, "is outside its confidence interval"),
        ("accuracy_high", -1, "is outside its confidence interval"),
        ("cluster_low", 1, "is outside its interval by first word"),
        ("cluster_high", -1, "is outside its interval by first word"),
        ("top3_accuracy", -1, "accuracy is above top-3 accuracy"),
    ],
)
def test_accuracy_may_equal_its_bounds_but_not_exceed_them(side, name, sign, contradiction):
    accuracy = COMPLETE["metrics"][side]["accuracy"]
    for step, count in ((0.0, 0), (1e-7, 0), (1e-5, 1)):
        content = changed(COMPLETE, ("metrics", side, name), accuracy + sign * step)
        faults = contradictions(content)
        assert len(faults) == count
        assert all(contradiction in each and each.startswith(f"{side} acc") for each in faults)


def test_baseline_compared_on_a_sample_may_have_another_accuracy():
    compared = {**comparison(91, 100, 9, 4), "products": 300, "accuracy": 0.8}
    assert contradictions(with_linear(evaluation(), compared)) == []


@pytest.mark.parametrize("pairs", [{"only_model_right": 273}, {"only_baseline_right": 1}])
def test_discordant_pairs_are_correct_predictions(pairs):
    """The model is correct on 272 of 300 products, the baseline on none."""
    content = with_linear(evaluation(), comparison(272, 300, 272, 0))
    assert contradictions(content) == []
    content["baselines"]["linear"]["paired"] |= pairs
    assert "linear: more discordant pairs than correct predictions" in contradictions(content)


def test_other_baselines_and_an_absent_champion_are_not_compared():
    content = changed(evaluation(), ("baselines", "linear", "accuracy"), 0.1)
    assert contradictions(content, ("majority",)) == []
    assert contradictions(content, ("absent",)) == []


@pytest.mark.parametrize(
    ("path", "value", "contradiction"),
    [
        (("metrics", "train", "ece_debiased"), 0.06, "train calibration error is higher when"),
        (("metrics", "test", "products"), 301, "is 300, but 301 products were tested"),
        (("confusion",), [[89, 6, 5], *MATRIX[1:]], "contradicts support or recall of bulk"),
        (("confusion",), [[90, 6, 5], *MATRIX[1:]], "contradicts support or recall of bulk"),
        (("baselines", "linear"), comparison(272, 301, 20, 10), "on more products than were"),
        (("baselines", "linear"), comparison(271, 300, 20, 10), "linear: paired accuracy of the"),
        (("baselines", "linear", "paired", "only_model_right"), 41, "contradict the discordant"),
        (("champion", "paired", "baseline_accuracy"), 0.85, "champion: accuracies contradict"),
        (("champion", "number", "with_champion"), 2, "champion: more comparisons with it than"),
        (("champion", "new_products"), new_products(90, 101, 28, 0), None),
        (("champion", "new_products"), new_products(90, 101, 0, 6), None),
        (
            ("champion", "new_products"),
            new_products(90, 301, 9, 0),
            ": champion, new products: compared",
        ),
        (("champion", "new_products"), new_products(90, 100, 29, 0), "pairs on new products than"),
        (("champion", "new_products"), new_products(90, 100, 0, 7), "pairs on new products than"),
    ],
)
def test_gate_fails_when_metrics_contradict_each_other(path, value, contradiction):
    decision = judged(changed(COMPLETE, path, value))
    assert decision.passed is (contradiction is None)
    assert (contradiction or ": 0.") in reason(decision, "consistent").sentence


def test_contradictions_are_counted():
    content = evaluation(linear=(280, 275))
    sentence = reason(judged(content), "consistent").sentence
    assert sentence.startswith("Contradictions between metrics: 1: linear: more discordant pairs")

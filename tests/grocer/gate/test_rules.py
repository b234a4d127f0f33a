"""Protects: what may be served. Each rule at its limit, no yes without numbers, no yes by harm."""

import json
from functools import reduce

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from grocer.config.stages import GatePolicy
from grocer.errors import BundleError
from grocer.gate.rules import check_digests, decide
from tests.fixtures.evaluations import (
    LABELS,
    LENIENT,
    SHARES,
    WHOLE,
    changed,
    evaluation,
    mcnemar,
    pairing,
    policy,
    reason,
)


def test_a_good_adapter_passes_and_every_rule_says_why():
    decision = decide(evaluation(), LENIENT)
    assert decision.passed
    assert [each.rule for each in decision.reasons] == [
        "test_products", "accuracy", "gap", "baseline:majority", "baseline:linear",
        "baseline:base_model", "recall", "ece", "champion", "measured", "consistent",
    ]  # fmt: skip
    assert [each.sentence for each in decision.reasons] == [
        "300 products were tested (limit 200).",
        "Test accuracy is at least 0.877 with 95 % confidence (limit 0.800).",
        "Train accuracy less test accuracy is 0.043 (limit 0.100).",
        "Accuracy is 0.907 against 0.333 of baseline majority on the same 300 products, "
        "p < 0.001 (limit: higher with p below 0.05).",
        "Accuracy is 0.907 against 0.807 of baseline linear on the same 300 products, "
        "p < 0.001 (limit: higher with p below 0.05).",
        "Accuracy is 0.905 against 0.330 of baseline base_model on the same 200 products, "
        "p < 0.001 (limit: higher with p below 0.05).",
        "The lowest recall of 3 departments with 20 or more test products is 0.900, in bulk "
        "(limit 0.300).",
        "The expected calibration error is 0.020 (limit 0.100).",
        "No champion is served, so there is none to beat: the rule is not applied.",
        "Values wanting: 0 of 75 (limit 0).",
        "Contradictions in the counts: 0 (limit 0).",
    ]


RIGHT = 272 / 300
TIED = {"linear": (20, 20)}  # the baseline is as good as the model
BEHIND = {"linear": (10, 25)}  # it is 0.05 better


@pytest.mark.parametrize(
    ("rule", "passed", "given", "limits"),
    [
        ("test_products", True, {}, {"min_test_products": 300}),
        ("test_products", False, {}, {"min_test_products": 301}),
        ("test_products", True, {}, {"min_test_products": 299}),
        ("accuracy", True, {"low": 0.85}, {"min_accuracy": 0.85}),
        ("accuracy", True, {"low": 0.8501}, {"min_accuracy": 0.85}),
        ("accuracy", False, {"low": 0.8499}, {"min_accuracy": 0.85}),
        ("gap", True, {"train": 950}, {"max_train_test_gap": 0.95 - RIGHT}),
        ("gap", True, {"train": 949}, {"max_train_test_gap": 0.95 - RIGHT}),
        ("gap", False, {"train": 951}, {"max_train_test_gap": 0.95 - RIGHT}),
        ("gap", True, {"train": 500}, {"max_train_test_gap": 0.0}),
        ("baseline:linear", True, {"linear": (6, 0)}, {}),  # p = 0.031
        ("baseline:linear", False, {"linear": (5, 0)}, {}),  # p = 0.0625
        ("baseline:linear", False, {"linear": (6, 0), "confidence": 1 - mcnemar(6, 0)}, {}),
        ("baseline:linear", False, {"linear": (0, 20)}, {}),  # significantly worse
        ("baseline:linear", False, TIED, {}),
        ("baseline:linear", True, TIED, {"linear_margin": 1e-6}),
        ("baseline:linear", False, BEHIND, {}),
        ("baseline:linear", True, BEHIND, {"linear_margin": 0.05}),
        ("baseline:linear", True, BEHIND, {"linear_margin": 0.0501}),
        ("baseline:linear", False, BEHIND, {"linear_margin": 0.0499}),
        ("recall", True, {}, {"min_department_recall": 0.9}),
        ("recall", True, {}, {"min_department_recall": 0.89}),
        ("recall", False, {}, {"min_department_recall": 0.91}),
        ("recall", False, {}, {"min_department_recall": 0.91, "min_department_support": 100}),
        ("recall", True, {}, {"min_department_recall": 0.91, "min_department_support": 101}),
        ("ece", True, {"ece": 0.1}, {"max_ece": 0.1}),
        ("ece", True, {"ece": 0.099}, {"max_ece": 0.1}),
        ("ece", False, {"ece": 0.101}, {"max_ece": 0.1}),
        ("champion", True, {"champion": (6, 5)}, {}),
        ("champion", False, {"champion": (5, 5)}, {}),
        ("champion", False, {"champion": (0, 0)}, {}),
        ("champion", False, {"champion": (5, 6)}, {}),
    ],
)
def test_each_rule_at_above_and_below_its_limit(rule, passed, given, limits):
    decision = decide(evaluation(**given), policy(**limits))
    assert reason(decision, rule).passed is passed
    assert decision.passed is passed, "and nothing but this rule decides here"


def test_decimal_rounding_is_no_reason():
    matrix = [[83, 8, 9], [10, 83, 7], [8, 9, 83]]
    assert 0.93 - 0.83 > 0.1
    assert reason(decide(evaluation(matrix, train=930), policy()), "gap").passed
    assert not reason(decide(evaluation(matrix, train=931), policy()), "gap").passed


def test_only_the_baselines_of_the_policy_are_asked_for():
    given = evaluation(linear=(0, 20))
    assert not decide(given, policy()).passed
    assert decide(given, policy(baselines=("majority",))).passed
    del given["baselines"]
    assert not decide(given, policy(baselines=("majority",))).passed
    assert decide(given, policy(baselines=())).passed


@pytest.mark.parametrize(
    ("rule", "given", "limits", "sentence"),
    [
        (
            "ece",
            {"ece": 0.10004},
            {"max_ece": 0.1},
            "The expected calibration error is 0.10004 (limit 0.10000).",
        ),
        (
            "accuracy",
            {"low": 0.84996},
            {"min_accuracy": 0.85},
            "Test accuracy is at least 0.84996 with 95 % confidence (limit 0.85000).",
        ),
        (
            "recall",
            {},
            {"min_department_recall": 0.91},
            "Recall of 2 of 3 departments with 20 or more test products is 0.900 in bulk, "
            "0.900 in pets (limit 0.91).",
        ),
        (
            "recall",
            {},
            {"min_department_support": 1000},
            "There are no departments with 1,000 or more test products, so none is judged on "
            "recall (limit 0.300).",
        ),
        (
            "baseline:linear",
            BEHIND,
            {"linear_margin": 0.04},
            "Accuracy is 0.907 against 0.957 of baseline linear on the same 300 products, "
            "p = 0.017 (limit: higher with p below 0.05, or at most 0.04 lower).",
        ),
        (
            "champion",
            {"champion": (5, 5)},
            {},
            "Accuracy is 0.907 against 0.907 of the champion on the same 300 products, p = 1.000 "
            "(limit: higher; a tie keeps the champion).",
        ),
    ],
)
def test_sentences_give_the_number_and_the_limit(rule, given, limits, sentence):
    assert reason(decide(evaluation(**given), policy(**limits)), rule).sentence == sentence


@pytest.mark.parametrize(
    ("low", "shown"),
    [(0.85 - 1e-11, "0.84999999999 with 95 % confidence (limit 0.85000000000)"),
     (0.85 - 1e-12, "0.85000000000 with 95 % confidence (limit 0.85000000000)"),
     (0.85, "0.850 with 95 % confidence (limit 0.850)")],
)  # fmt: skip
def test_a_number_is_told_apart_from_its_limit_by_up_to_eleven_digits(low, shown):
    told = reason(decide(evaluation(low=low), policy(min_accuracy=0.85)), "accuracy")
    assert told.sentence == f"Test accuracy is at least {shown}."
    assert told.passed is (low >= 0.85)


def test_the_lowest_recall_is_told_wherever_its_department_stands():
    given = evaluation([[94, 3, 3], [4, 92, 4], [6, 4, 90]])
    assert " is 0.900, in pets (" in reason(decide(given, LENIENT), "recall").sentence


@pytest.mark.parametrize("who", [("baselines", "linear"), ("champion",)])
def test_a_comparison_on_no_products_is_nothing_to_judge_by(who):
    given = changed(WHOLE, (*who, "paired", "products"), 0)
    told = reason(decide(given, LENIENT), ":".join(who).replace("baselines", "baseline"))
    assert told.passed is False
    assert told.sentence == (
        f"There is nothing to judge by: {'.'.join(who)}.paired.products is 0, no count from 1."
    )


def test_a_comparison_on_one_product_is_judged():
    given = evaluation()
    given["baselines"]["linear"] = pairing(1, 1, 1, 0)
    told = reason(decide(given, LENIENT), "baseline:linear")
    assert "is 1.000 against 0.000 of baseline linear on the same 1 products" in told.sentence


def test_a_champion_must_have_answered_every_test_product():
    given = evaluation(champion=(20, 10))
    given["champion"] |= pairing(180, 200, 20, 10)
    told = reason(decide(given, LENIENT), "champion")
    assert not told.passed
    assert told.sentence == "The champion answered 200 test products (limit: all 300)."


def test_of_many_low_recalls_the_lowest_are_told_by_what_labels_are_called():
    aisles = [f"aisle {number}" for number in range(9)]
    row = {"support": 30, "precision": 0.5, "f1": 0.5}
    given = evaluation() | {
        "label": "aisle",
        "departments": {name: {**row, "recall": i / 100} for i, name in enumerate(aisles)},
    }
    told = reason(
        decide(given, LENIENT.model_copy(update={"min_department_recall": 0.3})), "recall"
    )
    assert told.sentence == (
        "Recall of 9 of 9 aisles with 20 or more test products is 0.000 in aisle 0, 0.010 in "
        "aisle 1, 0.020 in aisle 2, 0.030 in aisle 3, 0.040 in aisle 4, and 4 more (limit 0.3)."
    )


def test_a_tie_is_not_better_whatever_p_says():
    given = evaluation(linear=(20, 20))
    given["baselines"]["linear"]["paired"]["p_value"] = 0.001
    told = reason(decide(given, LENIENT), "baseline:linear")
    assert not told.passed
    assert "p = 0.001 " in told.sentence


def test_two_departments_are_enough():
    assert decide(evaluation([[140, 10], [10, 140]]), LENIENT).passed


@st.composite
def cases(draw):
    """A policy, a sound evaluation near its limits, and the same made worse in one respect."""
    # At least 45 are wrong, so that whatever beats the model by up to 41 of 300 has room to.
    hits = [draw(st.integers(60, 85)) for _ in LABELS]
    wrong = draw(st.sampled_from(range(3)))
    limits = {
        "min_accuracy": draw(st.floats(0.5, 0.85)),
        "max_train_test_gap": draw(st.floats(0.0, 0.3)),
        "linear_margin": draw(st.sampled_from([0.0, 0.02, 0.1])),
        "min_department_recall": draw(st.floats(0.5, 1.0)),
        "max_ece": draw(st.floats(0.0, 0.2)),
        "baselines": ("linear",),
    }
    right = sum(hits)
    given = {
        "train": draw(st.integers(600, 999)),
        "low": draw(st.floats(0.7, 1.0)) * right / 300,
        "ece": draw(st.floats(0.0, 0.2)),
        "linear": (draw(st.integers(1, 40)), draw(st.integers(0, 40))),
        "champion": draw(st.none() | st.tuples(st.integers(1, 9), st.integers(0, 9))),
    }
    worse = dict(given)
    fewer = list(hits)
    match draw(st.sampled_from(["low", "ece", "train", "hit", "linear", "champion"])):
        case "low":
            worse["low"] = given["low"] * draw(st.floats(0.0, 1.0))
        case "ece":
            worse["ece"] = draw(st.floats(given["ece"], 1.0))
        case "train":
            worse["train"] = draw(st.integers(given["train"], 1000))
        case "hit":  # one more test product wrong, which each of the others had wrong or right
            fewer[wrong] -= 1
            for other in ("linear", "champion"):
                if given[other]:
                    won, lost = given[other]
                    worse[other] = draw(st.sampled_from([(won - 1, lost), (won, lost + 1)]))
            worse["low"] = min(given["low"], (right - 1) / 300)
        case other:
            assume(given[other])
            won, lost = given[other]
            worse[other] = draw(st.sampled_from([(won - 1, lost), (won, lost + 1)]))
    return GatePolicy(**limits), case_of(hits, given), case_of(fewer, worse)


def case_of(hits, given):
    matrix = [[0, 0, 0] for _ in hits]
    for place, hit in enumerate(hits):
        matrix[place][place], matrix[place][place - 1] = hit, 100 - hit
    return evaluation(matrix, **given)


@given(cases())
def test_making_a_metric_worse_never_turns_a_no_into_a_yes(case):
    limits, before, after = case
    was, now = decide(before, limits), decide(after, limits)
    assert reason(was, "measured").passed
    assert reason(was, "consistent").passed
    for old, new in zip(was.reasons, now.reasons, strict=True):
        assert old.rule == new.rule
        assert old.passed or not new.passed
    assert was.passed or not now.passed


@given(st.sampled_from(SHARES), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_nor_does_any_single_number_that_is_worse(path, limit, value):
    """Also where the rest no longer fits it: that is a no of its own."""
    low_is_good = path[-1] in {"ece", "log_loss", "p_value", "baseline_accuracy"}
    if path[:2] == ("metrics", "train") or path[0] in {"calibration", "confidence"}:
        return
    now = reduce(lambda node, key: node[key], path, WHOLE)
    worse = max(now, value) if low_is_good else min(now, value)
    limits = GatePolicy(min_accuracy=limit, max_ece=limit, min_department_recall=limit)
    assert decide(WHOLE, limits).passed or not decide(changed(WHOLE, path, worse), limits).passed


@pytest.mark.parametrize("name", ["majority", "base_model"])
def test_no_margin_excuses_a_baseline_that_knows_no_product(name):
    given = evaluation()
    given["baselines"][name] = pairing(272, 300, 5, 5)
    found = reason(decide(given, policy(linear_margin=1.0)), f"baseline:{name}")
    assert not found.passed
    assert found.sentence.endswith("p = 1.000 (limit: higher with p below 0.05).")


def record():
    return decide(evaluation(), LENIENT).to_json("d" * 64)


def artifacts(**other):
    return {"model": "a" * 64, "splits": "b" * 64, "evaluation": "d" * 64, **other}


def test_what_was_judged_may_be_deployed():
    assert record()["digests"] == artifacts()
    check_digests(record(), artifacts())


@pytest.mark.parametrize("name", ["model", "splits", "evaluation"])
def test_anything_else_may_not(name):
    with pytest.raises(
        BundleError,
        match=f"about another {name}: it names {artifacts()[name][:12]}, .* is ffffffffffff;",
    ):
        check_digests(record(), artifacts(**{name: "f" * 64}))
    told = record()
    told["digests"][name] = ""
    with pytest.raises(BundleError, match=f"about another {name}"):
        check_digests(told, artifacts(**{name: ""}))
    del told["digests"][name]
    with pytest.raises(BundleError, match=f"about another {name}: it names none"):
        check_digests(told, artifacts())


def test_a_refused_adapter_may_not_and_hears_why():
    told = decide(evaluation(ece=0.3), LENIENT).to_json("d" * 64)
    with pytest.raises(BundleError, match=r"gate said no.*: The expected calibration error is 0.3"):
        check_digests(told, artifacts())
    with pytest.raises(BundleError, match=r"is not served: Its decision states no reason\.$"):
        check_digests({}, artifacts())
    with pytest.raises(BundleError, match="gate said no"):
        check_digests({**record(), "passed": 1}, artifacts())
    both = decide(evaluation(ece=0.3), policy(min_test_products=301)).to_json("d" * 64)
    with pytest.raises(BundleError, match=r"300 products were .* 301\)\. The expected calib"):
        check_digests(both, artifacts())


def test_a_yes_about_nothing_is_no():
    told = record()
    del told["digests"]
    with pytest.raises(BundleError, match="about another model: it names none"):
        check_digests(told, artifacts())


def test_decision_json_says_all():
    told = record()
    assert list(told) == ["passed", "reasons", "policy", "digests"]
    assert told["reasons"][0] == {
        "rule": "test_products",
        "passed": True,
        "sentence": "300 products were tested (limit 200).",
    }
    assert told["policy"]["min_accuracy"] == 0.8
    assert json.loads(json.dumps(told)) == told, "and the same once it was written and read"


def test_markdown_says_first_what_speaks_against_it():
    lines = decide(evaluation(ece=0.3), LENIENT).to_markdown().splitlines()
    assert lines[:5] == [
        "# The gate says no",
        "",
        "10 of 11 rules are met.",
        "",
        "- **no**: The expected calibration error is 0.300 (limit 0.100).",
    ]
    assert lines[5] == "- yes: 300 products were tested (limit 200)."
    assert len(lines) == 4 + 11
    assert decide(evaluation(), LENIENT).to_markdown().startswith("# The gate says yes\n")

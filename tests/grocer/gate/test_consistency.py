"""Protects the readers of an evaluation: what counts as a number, how near is equal, and that what
is absent or contradicts itself is a no."""

import math

import pytest

from grocer.gate import consistency as soundness
from grocer.gate.consistency import UnmeasuredError
from grocer.gate.rules import decide
from tests.fixtures.evaluations import (
    LENIENT,
    MATRIX,
    OWED,
    SHARES,
    WHOLE,
    changed,
    evaluation,
    pairing,
    policy,
    reason,
)

LINEAR = ("linear",)


@pytest.mark.parametrize(
    ("read", "value", "sentence"),
    [
        (soundness.number, None, "a.b is None, no number from 0 to inf"),
        (soundness.number, "1", "a.b is '1', no number from 0 to inf"),
        (soundness.number, True, "a.b is True, no number from 0 to inf"),
        (soundness.number, -0.1, "a.b is -0.1, no number from 0 to inf"),
        (soundness.number, math.inf, "a.b is inf, no number from 0 to inf"),
        (soundness.share, 1.0000001, "a.b is 1.0000001, no number from 0 to 1"),
        (soundness.count, 1.0, "a.b is 1.0, no count from 0"),
        (soundness.count, True, "a.b is True, no count from 0"),
        (soundness.count, -1, "a.b is -1, no count from 0"),
        (soundness.named, {}, "a.b is {}, no table of names"),
        (soundness.named, ["x"], "a.b is ['x'], no table of names"),
    ],
)
def test_what_a_reader_refuses_it_names_with_its_place(read, value, sentence):
    with pytest.raises(UnmeasuredError) as caught:
        read({"a": {"b": value}}, "a", "b")
    assert str(caught.value) == sentence


@pytest.mark.parametrize("given", [{}, {"a": {}}, {"a": [1]}, {"a": "b"}])
def test_what_is_absent_is_named_whole(given):
    with pytest.raises(UnmeasuredError) as caught:
        soundness.at(given, "a", "b")
    assert str(caught.value) == "a.b is absent"


def test_limits_themselves_are_in_range():
    assert soundness.share({"a": 0}, "a") == 0.0
    assert soundness.share({"a": 1}, "a") == 1.0
    assert soundness.count({"a": 0}, "a") == 0
    assert soundness.count({"a": 1}, "a", least=1) == 1
    with pytest.raises(UnmeasuredError, match="a is 0, no count from 1"):
        soundness.count({"a": 0}, "a", least=1)


@pytest.mark.parametrize("labels", ["ab", {"a": 1, "b": 2}, ["a", 1], ["a", "a"], ["a"], []])
def test_labels_are_a_list_of_two_or_more_different_names(labels):
    with pytest.raises(UnmeasuredError, match="no list of 2 or more"):
        soundness.labels({"labels": labels})
    assert soundness.labels({"labels": ("a", "b")}) == ["a", "b"]


@pytest.mark.parametrize("digest", [None, 7, "", "a" * 63, "a" * 65, "A" * 64, "g" * 64])
@pytest.mark.parametrize("name", ["model", "splits"])
def test_a_digest_is_64_hexadecimal_digits(name, digest):
    given = changed(WHOLE, ("digests", name), digest)
    with pytest.raises(UnmeasuredError) as caught:
        soundness.digests(given)
    assert str(caught.value) == f"digests.{name} is {digest!r}, no digest"


@pytest.mark.parametrize(
    "path",
    [
        *(("metrics", side, "products") for side in soundness.SIDES),
        *((*who, "products") for who in (("baselines", "linear"), ("champion",))),
        *((*who, "paired", "products") for who in (("baselines", "linear"), ("champion",))),
        ("departments", "pets", "support"),
    ],
    ids=".".join,
)
def test_a_measurement_of_no_products_is_none_and_of_one_is_one(path):
    _, wrong = soundness.measured(changed(WHOLE, path, 0), LINEAR)
    assert wrong == [f"{'.'.join(path)} is 0, no count from 1"]
    assert soundness.measured(changed(WHOLE, path, 1), LINEAR)[1] == []


def test_pairs_may_be_none():
    given = evaluation(linear=(0, 0))
    assert soundness.measured(given, LINEAR)[1] == []


def test_an_infinite_number_is_told_by_the_whole_way_to_it():
    given = WHOLE | {"slices": {7: ({"accuracy": [0.5, math.nan]},)}, "more": -math.inf}
    assert soundness.measured(given, LINEAR)[1] == [
        "slices.7.0.accuracy.1 is not finite",
        "more is not finite",
    ]


def rounded(value, digits):
    """The same evaluation with each share written to so many digits."""
    if isinstance(value, dict):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    return round(value, digits) if isinstance(value, float) else value


def test_accuracies_of_six_digits_contradict_nothing_and_of_three_do():
    matrix = [[89, 5, 6], [4, 92, 4], [6, 4, 90]]  # 271 of 300: no decimal fraction
    given = evaluation(matrix, champion=(20, 10))
    assert soundness.contradictions(rounded(given, 6), LINEAR) == []
    assert soundness.contradictions(rounded(given, 3), LINEAR) == [
        "recall by department does not add up to test accuracy",
        "champion: accuracies contradict the pairs",
    ]


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        (("departments", "pets", "recall"), "recall by department does not add up to test acc"),
        (("departments", "pets", "recall"), "matrix has another support or recall of pets"),
        (("baselines", "linear", "accuracy"), "linear: two different accuracies"),
        (("baselines", "linear", "paired", "baseline_accuracy"), "linear: accuracies contradict"),
        (("baselines", "linear", "paired", "model_accuracy"), "linear: compared with another acc"),
        (("champion", "paired", "model_accuracy"), "champion: compared with another accuracy"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_one_answer_in_300_is_a_contradiction_that_is_found(path, fault, sign):
    was = WHOLE
    for key in path:
        was = was[key]
    size = 100 if path[0] == "departments" else 300
    near = soundness.contradictions(changed(WHOLE, path, was + sign * 1e-7), LINEAR)
    assert near == []
    off = soundness.contradictions(changed(WHOLE, path, was + sign / size), LINEAR)
    assert any(fault in told for told in off)


@pytest.mark.parametrize("side", soundness.SIDES)
@pytest.mark.parametrize(
    ("name", "beyond", "fault"),
    [
        ("accuracy_low", 1, "is outside its interval"),
        ("accuracy_high", -1, "is outside its interval"),
        ("top3_accuracy", -1, "accuracy is above top-3 accuracy"),
    ],
)
def test_an_accuracy_may_stand_on_its_bounds_but_not_beyond(side, name, beyond, fault):
    accuracy = WHOLE["metrics"][side]["accuracy"]
    for step, found in ((0.0, 0), (1e-7, 0), (1e-5, 1)):
        given = changed(WHOLE, ("metrics", side, name), accuracy + beyond * step)
        told = soundness.contradictions(given, LINEAR)
        assert len(told) == found
        assert all(fault in each and each.startswith(f"{side} accuracy") for each in told)


def test_a_baseline_may_be_compared_on_fewer_products_than_it_answered():
    """Then its two accuracies are of different products, and need not agree."""
    given = evaluation()
    given["baselines"]["linear"] = {**pairing(91, 100, 9, 4), "products": 300, "accuracy": 0.8}
    assert soundness.contradictions(given, LINEAR) == []


@pytest.mark.parametrize("pairs", [{"only_model_right": 273}, {"only_baseline_right": 1}])
def test_pairs_are_won_with_right_answers_only(pairs):
    """The model has 272 of 300 right, and the baseline, which loses all of them, none."""
    given = evaluation() | {"baselines": {"linear": pairing(272, 300, 272, 0)}}
    assert soundness.contradictions(given, LINEAR) == []
    given["baselines"]["linear"]["paired"] |= pairs
    assert "linear: more pairs than right answers" in soundness.contradictions(given, LINEAR)


def parents(paths):
    return sorted({path[:n] for path in paths for n in range(1, len(path))})


@pytest.mark.parametrize("path", [*OWED, *parents(OWED)], ids=".".join)
def test_without_any_value_the_answer_is_no(path):
    assert decide(WHOLE, LENIENT).passed
    decision = decide(changed(WHOLE, path), LENIENT)
    assert not decision.passed
    assert any(path[-1] in each.sentence for each in decision.reasons if not each.passed)


@pytest.mark.parametrize("path", OWED, ids=".".join)
def test_what_is_no_number_is_no(path):
    for value in (None, math.nan, math.inf, -math.inf, -1, "1", True, [], {}):
        assert not decide(changed(WHOLE, path, value), LENIENT).passed, value


@pytest.mark.parametrize("path", SHARES, ids=".".join)
def test_a_share_above_one_is_no(path):
    unbounded = path[-1] in {"log_loss", "temperature"}
    assert decide(changed(WHOLE, path, 1.5), LENIENT).passed is unbounded


@pytest.mark.parametrize("path", [("slices",), ("calibration", "reliability")])
def test_nan_anywhere_is_a_no_that_says_where(path):
    decision = decide(changed(WHOLE, path, [{"accuracy": [0.5, math.nan]}]), LENIENT)
    assert f"{'.'.join(path)}.0.accuracy.1 is not finite" in reason(decision, "measured").sentence


def test_precision_may_be_undefined_only_where_nothing_was_predicted():
    never = [[0, 50, 50], [0, 96, 4], [0, 4, 96]]
    limits = policy(min_accuracy=0.5, min_department_recall=0.0, max_train_test_gap=1.0)
    given = evaluation(never, linear=(40, 10))
    given["baselines"]["majority"] = pairing(192, 300, 100, 8)
    assert given["departments"]["bulk"]["precision"] is None
    assert decide(given, limits).passed
    decision = decide(changed(given, ("departments", "dairy", "precision"), None), limits)
    assert not decision.passed
    assert "departments.dairy.precision is absent" in reason(decision, "measured").sentence


def test_a_department_without_test_products_is_no():
    given = changed(WHOLE, ("departments", "bulk", "support"), 0)
    told = reason(decide(given, LENIENT), "measured")
    assert "departments.bulk.support is 0, no count from 1" in told.sentence


def test_what_is_wanting_is_told_in_part():
    given = evaluation()
    del given["metrics"]["train"]
    told = reason(decide(given, LENIENT), "measured").sentence
    assert told.startswith("Values wanting: 11 of 75 (limit 0): metrics.train.products is absent; ")
    assert told.endswith("metrics.train.accuracy_high is absent; and 6 more.")


@pytest.mark.parametrize("wanting", [1, 5])
def test_what_is_wanting_is_told_in_full_where_it_is_little(wanting):
    given = evaluation()
    names = list(given["metrics"]["validation"])[-wanting:]
    for name in names:
        del given["metrics"]["validation"][name]
    told = reason(decide(given, LENIENT), "measured").sentence
    assert "more" not in told
    assert all(f"metrics.validation.{name} is absent" in told for name in names)


def test_an_empty_evaluation_is_no_in_every_rule():
    decision = decide({}, LENIENT)
    assert not any(each.passed for each in decision.reasons)
    assert decision.digests == {}


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("metrics", "test", "accuracy_high"), 0.9, "test accuracy 0.9067 is outside its interval"),
        (("metrics", "train", "accuracy_low"), 0.96, "train accuracy 0.9500 is outside"),
        (("metrics", "validation", "top3_accuracy"), 0.89, "validation accuracy is above top-3"),
        (("metrics", "test", "products"), 301, "have 300 products of 301 tested"),
        (("labels",), ["bulk", "dairy", "petz"], "absent"),
        (
            ("departments", "extra"),
            WHOLE["departments"]["bulk"],
            " the departments are not the labels",
        ),
        (("departments", "bulk", "recall"), 0.91, "recall by department does not add up"),
        (("confusion",), [[89, 6, 5], *MATRIX[1:]], "another support or recall of bulk"),
        (("confusion",), [[90, 6, 5], *MATRIX[1:]], "another support or recall of bulk"),
        (("confusion",), MATRIX[:2], "no table of 3 by 3"),
        (("confusion",), [row[:2] for row in MATRIX], "no table of 3 by 3"),
        (("confusion",), [[95, 5, True], *MATRIX[1:]], "no table of 3 by 3"),
        (("baselines", "linear"), pairing(272, 301, 20, 10), "on more products than were tested"),
        (("baselines", "linear"), pairing(271, 300, 20, 10), "another accuracy of the model"),
        (("baselines", "linear", "paired", "only_model_right"), 41, "contradict the pairs"),
        (("baselines", "linear", "accuracy"), 0.8, "linear: two different accuracies"),
        (("baselines", "linear"), pairing(272, 300, 273, 0), "absent|range|from 0"),
        (("champion", "paired", "baseline_accuracy"), 0.85, "champion: accuracies contradict"),
        (("labels",), ["bulk", "bulk", "pets"], "no list of 2 or more"),
        (("labels",), ["bulk"], "no list of 2 or more"),
        (("schema",), 2, "schema is 2, not 1"),
    ],
)
def test_numbers_that_contradict_each_other_are_no(path, value, fault):
    decision = decide(changed(WHOLE, path, value), LENIENT)
    against = " ".join(each.sentence for each in decision.reasons if not each.passed)
    assert not decision.passed
    assert any(part in against for part in fault.split("|"))


def test_more_pairs_than_right_answers_are_a_contradiction():
    given = evaluation(linear=(280, 275))
    told = reason(decide(given, LENIENT), "consistent").sentence
    assert "linear: more pairs than right answers" in told

"""The gate finds metrics of the classifiers that contradict those of the selected one."""

import pytest

from grocer.gate.classifiers import classifier_checks
from tests.fixtures.evaluations import changed, evaluation, judged, parse, reason, value_at

STRATEGIES = ("adapter", "ensemble", "cascade", "linear")


def contradictions(content, baselines=("linear",)):
    return [text for passed, text in classifier_checks(parse(content), baselines) if not passed]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_complete_evaluation_has_no_contradiction(strategy):
    content = evaluation(strategy=strategy)
    assert contradictions(content) == []
    assert reason(judged(content), "consistent").passed


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "ece", "ece_debiased", "log_loss"])
@pytest.mark.parametrize("sign", [1, -1])
def test_selected_classifier_has_the_test_metrics(strategy, name, sign):
    content = evaluation(strategy=strategy)
    path = ("metrics", "test", name)
    value = value_at(content, path)
    assert contradictions(changed(content, path, value + sign * 1e-7)) == []
    (first, *_) = contradictions(changed(content, path, value + sign * 1e-5))
    assert first == f"{name} of the selected classifier {strategy} differs from test {name}"


@pytest.mark.parametrize("sign", [1, -1])
def test_tolerance_of_a_log_loss_above_one_is_relative(sign):
    content = evaluation(log_loss=(30.0, 40.0, 0.2))
    path = ("metrics", "test", "log_loss")
    assert contradictions(changed(content, path, 30.0 + sign * 2e-5)) == []
    assert len(contradictions(changed(content, path, 30.0 + sign * 4e-5))) == 2


def test_selected_classifier_has_the_validation_log_loss():
    content = changed(evaluation(), ("metrics", "validation", "log_loss"), 0.31)
    assert contradictions(content) == [
        "validation log-loss of adapter differs from that of the validation products"
    ]
    content = changed(evaluation(), ("classifiers", "linear", "validation_log_loss"), 0.31)
    assert contradictions(content) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_classifier_is_measured_on_all_test_products(strategy):
    content = changed(evaluation(), ("classifiers", strategy, "products"), 299)
    assert contradictions(content) == [f"{strategy}: measured on 299 of 300 products"]


@pytest.mark.parametrize(
    ("strategy", "share"),
    [("adapter", 0.99), ("adapter", 0.0), ("ensemble", 0.5), ("linear", 0.01), ("linear", 1.0)],
)
def test_share_of_the_language_model_follows_from_the_strategy(strategy, share):
    content = changed(evaluation(), ("classifiers", strategy, "language_model_share"), share)
    assert contradictions(content) == [
        f"{strategy}: impossible share of products that the language model scores"
    ]


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_share_of_a_cascade_is_measured(share):
    content = changed(evaluation(), ("classifiers", "cascade", "language_model_share"), share)
    assert contradictions(content) == []


@pytest.mark.parametrize("name", ["accuracy", "macro_f1"])
def test_linear_baseline_is_the_linear_classifier(name):
    content = changed(evaluation(), ("classifiers", "linear", name), 0.5)
    expected = f"{name} of the classifier linear differs from that of the baseline"
    assert contradictions(content) == [expected]
    assert contradictions(content, ("majority",)) == []
    content["baselines"]["linear"]["products"] = 299  # a sample may have another accuracy
    assert contradictions(content) == []


@pytest.mark.parametrize(
    ("name", "contradiction"),
    [
        ("model_log_loss", "linear: paired log-loss of the model differs from test log-loss"),
        ("baseline_log_loss", "linear: paired log-loss differs from that of the classifier linear"),
    ],
)
def test_log_losses_of_the_paired_test_are_those_of_both_classifiers(name, contradiction):
    content = changed(evaluation(), ("baselines", "linear", "paired_log_loss", name), 0.35)
    assert contradictions(content) == [contradiction]
    content["baselines"]["linear"]["paired"]["products"] = 299
    assert contradictions(content) == []


def test_unmeasured_linear_baseline_is_not_compared():
    content = changed(evaluation(), ("baselines", "linear"))
    assert contradictions(content) == []
    content = changed(evaluation(), ("baselines", "linear", "paired_log_loss"), None)
    assert contradictions(content) == []

"""The rules of the gate: whether a classifier may be deployed, decided from its evaluation alone.

`decide` is a pure function and fails closed: a missing metric or contradictory values fail the
decision. Each rule gives its reason, whether it passes or fails.
Making a metric worse never turns a failed decision into a passed one; for train accuracy, which
only the gap uses, worse is higher.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from grocer.artifacts.decision import Decision
from grocer.artifacts.evaluation import Evaluation
from grocer.artifacts.metrics import PairedTest
from grocer.config.stages import GatePolicy
from grocer.errors import ArtifactError, first_five
from grocer.events import Reason
from grocer.gate.consistency import contradictions, count_metrics, undefined_metrics
from grocer.model.paired_difference import upper_bound

ROUNDING = 1e-9
"""Tolerance for a difference of decimal fractions: 0.93 - 0.83 exceeds 0.1 in binary."""

UNCOUNTED = 52
"""Comparisons over which the error rate is spread if they are not counted: weekly for a year."""

MIN_SUPPORT = 20
"""Labels with fewer test products are exempt from the recall floor."""

# Whether a rule passed, and the sentence that states value and limit.
Verdict = tuple[bool, str]
Rule = Callable[[Evaluation, GatePolicy], Verdict]


def decide(evaluation: Evaluation, policy: GatePolicy) -> Decision:
    """Return the decision about `evaluation`: passed only if every rule passes."""
    outcomes = {name: rule(evaluation, policy) for name, rule in _rules(policy).items()}
    reasons = tuple(
        Reason(rule=name, passed=passed, sentence=sentence)
        for name, (passed, sentence) in outcomes.items()
    )
    return Decision(
        passed=all(reason.passed for reason in reasons),
        reasons=reasons,
        policy=policy,
        digests={"model": evaluation.digests.model, "splits": evaluation.digests.splits},
    )


def judge(text: str | bytes, policy: GatePolicy) -> Decision:
    """Return the decision about the content of evaluation.json; an invalid one fails."""
    try:
        return decide(Evaluation.parse(text, Evaluation.FILE), policy)
    except ArtifactError as error:
        problems = error.problems
    measured = f"Missing or invalid metrics: {len(problems)}{_listed(problems)}."
    other = "Metric unavailable: the evaluation is invalid."
    reasons = tuple(
        Reason(rule=name, passed=False, sentence=measured if name == "measured" else other)
        for name in dict.fromkeys(["measured", *_rules(policy)])  # first, as it says why
    )
    return Decision(passed=False, reasons=reasons, policy=policy, digests={})


def _rules(policy: GatePolicy) -> dict[str, Rule]:
    return {
        "test_products": _test_products,
        "accuracy": _accuracy,
        "gap": _gap,
        **{f"baseline:{name}": partial(_baseline, name) for name in policy.baselines},
        "recall": _recall,
        "ece": _ece,
        "champion": _champion,
        "measured": _measured,
        "consistent": _consistent,
    }


def _test_products(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    products, limit = evaluation.metrics.test.products, policy.min_test_products
    return products >= limit, f"Test products: {products:,} (minimum {limit:,})."


def _accuracy(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    """The lower of both bounds: neither clusters nor few of them make a result more certain."""
    test, limit = evaluation.metrics.test, policy.min_accuracy
    low, interval = min(
        (test.accuracy_low, "Wilson"), (test.cluster_low, "bootstrap over first words")
    )
    value_text, limit_text = _distinct(low, limit)
    return low >= limit, (
        f"Test accuracy, lower bound of the {100 * evaluation.confidence:g} % confidence "
        f"interval ({interval}): {value_text} (minimum {limit_text})."
    )


def _gap(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    gap = evaluation.metrics.train.accuracy - evaluation.metrics.test.accuracy
    limit = policy.max_train_test_gap
    if limit is None:
        return True, f"Train accuracy minus test accuracy: {gap:.3f} (no maximum)."
    value_text, limit_text = _distinct(gap, limit)
    return gap <= limit + ROUNDING, (
        f"Train accuracy minus test accuracy: {value_text} (maximum {limit_text})."
    )


def _baseline(name: str, evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    if name not in evaluation.baselines:
        return False, f"Metric unavailable: baselines.{name}."
    if name == "linear":
        return _linear(evaluation)
    paired, level = evaluation.baselines[name].paired, evaluation.significance
    return _more_accurate(paired, level), (
        f"Accuracy vs baseline {name} {_compared(paired, level)} "
        f"(required: higher with p < {level:g})."
    )


def _linear(evaluation: Evaluation) -> Verdict:
    """More accurate, or at least as accurate with a lower log-loss; both significantly."""
    baseline, level = evaluation.baselines["linear"], evaluation.significance
    paired, losses = baseline.paired, baseline.paired_log_loss
    if losses is None:
        return False, "Metric unavailable: baselines.linear.paired_log_loss."
    if evaluation.combination.strategy == "linear":
        return True, (
            "The selected classifier is the linear model; rule skipped. The language model is not "
            "deployed."
        )
    better_calibrated = (
        paired.model_accuracy >= paired.baseline_accuracy
        and losses.model_log_loss < losses.baseline_log_loss
        and losses.p_value < level
    )
    log_losses = " vs ".join(_distinct(losses.model_log_loss, losses.baseline_log_loss))
    return _more_accurate(paired, level) or better_calibrated, (
        f"Accuracy vs baseline linear {_compared(paired, level)}; log-loss {log_losses}, "
        f"{_p_text(losses.p_value, level)} (required: higher accuracy, or lower log-loss without "
        f"lower accuracy, with p < {level:g})."
    )


def _more_accurate(paired: PairedTest, level: float) -> bool:
    return paired.model_accuracy > paired.baseline_accuracy and paired.p_value < level


def _recall(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    passed, sentence = _lowest_recall(evaluation, policy)
    supports = {name: metrics.support for name, metrics in evaluation.departments.items()}
    untested = [name for name, support in supports.items() if not support]
    exempt = sum(support < MIN_SUPPORT for support in supports.values())
    if exempt:
        sentence += f" Exempt, with fewer test products: {exempt} of {len(supports)}."
    if untested:
        sentence += f" No test product in {len(untested)}: {first_five(untested, ', ')}."
    return passed, sentence


def _lowest_recall(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    limit = policy.min_department_recall
    recall = {
        name: metrics.recall or 0.0
        for name, metrics in evaluation.departments.items()
        if metrics.support >= MIN_SUPPORT
    }
    judged = f"{evaluation.label}s with at least {MIN_SUPPORT} test products"
    if not recall:
        return True, f"No {judged}; rule skipped (minimum recall {limit:.3f})."
    low = sorted((value, name) for name, value in recall.items() if value < limit)
    if low:
        lowest = first_five(
            [f"{_distinct(value, limit)[0]} in {name}" for value, name in low], ", "
        )
        return (
            False,
            f"Recall of {len(low)} of {len(recall)} {judged}: {lowest} (minimum {limit:g}).",
        )
    worst = min(recall, key=lambda name: recall[name])
    value_text, limit_text = _distinct(recall[worst], limit)
    return True, (
        f"Lowest recall of {len(recall)} {judged}: {value_text} in {worst} (minimum {limit_text})."
    )


def _ece(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    """Not above the limit, or not significantly above that of a calibrated model."""
    test, limit, level = evaluation.metrics.test, policy.max_ece, evaluation.significance
    value = max(test.ece_debiased, 0.0)
    value_text, limit_text = _distinct(value, limit)
    return value <= limit or test.ece_p_value >= level, (
        f"Expected calibration error, debiased: {value_text} (maximum {limit_text}), "
        f"{_p_text(test.ece_p_value, level)} (fails above the maximum with p < {level:g})."
    )


def _champion(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    if evaluation.champion is None:
        return True, "No champion deployed; rule skipped."
    paired, products = evaluation.champion.paired, evaluation.metrics.test.products
    if paired.products != products:
        return False, f"Champion: compared on {paired.products:,} of {products:,} test products."
    number, new = evaluation.champion.number, evaluation.champion.new_products
    if new is not None and new.products < policy.min_test_products:
        new = None
    # Half of the error rate is for the new products, which no earlier champion was compared on.
    rate = evaluation.significance if new is None else evaluation.significance / 2
    level = rate / UNCOUNTED if number is None else _spent(rate, number.total)
    which = f"one of {UNCOUNTED}" if number is None else f"number {number.total:,}"
    better = _more_accurate(paired, level)
    sentence = (
        f"Accuracy vs champion {_compared(paired, level)} (required: higher with p < {level:.2g} "
        f"in comparison {which} of these products"
    )
    if new is not None:
        level_of_new = level if number is None else _spent(rate, number.with_champion)
        not_worse = paired.model_accuracy >= paired.baseline_accuracy
        better = better or (not_worse and _more_accurate(new, level_of_new))
        sentence += (
            f"; or not lower, and with p < {level_of_new:.2g} on the {new.products:,} products "
            f"that were not in its catalogue: {_accuracies(new, level_of_new)}"
        )
    if (margin := policy.champion_margin) is None:
        return better, f"{sentence})."
    lost, won = paired.only_baseline_right, paired.only_model_right
    bound = -float(upper_bound(lost, won, paired.products, level))
    value_text, limit_text = _distinct(bound, -margin)
    return better or bound >= -margin, (
        f"{sentence}; or a lower bound of the difference of at least {limit_text}: "
        f"{value_text}). Reason for the margin: {policy.champion_margin_reason}."
    )


def _spent(rate: float, number: int) -> float:
    """The level of a comparison, so that the levels of any number of comparisons add up to `rate`.

    They all use the same test products: at a constant level, chance alone would replace the
    champion every few months.
    """
    return rate / (number * (number + 1))


def _measured(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    undefined = undefined_metrics(evaluation, policy.baselines)
    total = count_metrics(evaluation, policy.baselines)
    return not undefined, (
        f"Missing or invalid metrics: {len(undefined)} of {total}{_listed(undefined)}."
    )


def _consistent(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    faults = contradictions(evaluation, policy.baselines)
    return not faults, f"Contradictions between metrics: {len(faults)}{_listed(faults)}."


def _compared(paired: PairedTest, level: float) -> str:
    return f"on the same {paired.products:,} products: {_accuracies(paired, level)}"


def _accuracies(paired: PairedTest, level: float) -> str:
    """Both accuracies and McNemar's p."""
    accuracies = " vs ".join(_distinct(paired.model_accuracy, paired.baseline_accuracy))
    return f"{accuracies}, {_p_text(paired.p_value, level)}"


def _p_text(p_value: float, level: float) -> str:
    return "p < 0.001" if p_value < 0.001 <= level else f"p = {_distinct(p_value, level)[0]}"


def _listed(items: Sequence[str]) -> str:
    return f": {first_five(items, '; ')}" if items else ""


def _distinct(value: float, limit: float) -> tuple[str, str]:
    """Format both with at least three decimals, and with more if they would look equal."""
    for decimals in range(3, 12):
        value_text, limit_text = f"{value:.{decimals}f}", f"{limit:.{decimals}f}"
        if value_text != limit_text or value == limit:
            break
    return value_text, limit_text

"""The gate: whether an adapter may be served, decided from numbers alone.

`decide` reads nothing but its arguments, and it fails closed: a number that is absent, not
finite or out of its range, counts that contradict each other, a department without test
products are all a no. Every rule states its reason, also where it is met. Making a metric worse
never turns a no into a yes; of train accuracy, which only the gap looks at, worse is higher.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from grocer.config.stages import GatePolicy
from grocer.errors import BundleError
from grocer.gate.consistency import (
    Evaluation,
    UnmeasuredError,
    at,
    contradictions,
    count,
    digests,
    measured,
    named,
    share,
)

# A difference of decimal fractions (0.93 - 0.83) may miss a limit that it meets by this.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Reason:
    """What one rule found: a sentence with the number and the limit."""

    rule: str
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Decision:
    """Yes or no, why, by which policy, and about what."""

    passed: bool
    reasons: tuple[Reason, ...]
    policy: GatePolicy
    digests: Mapping[str, str]
    """SHA-256 of the artifacts that were measured, `model` and `splits`; empty if not told."""

    def to_json(self, evaluation: str) -> dict[str, Any]:
        """What `decision.json` holds; `evaluation` is the digest of the artifact judged."""
        return {
            "passed": self.passed,
            "reasons": [asdict(reason) for reason in self.reasons],
            "policy": self.policy.model_dump(mode="json"),
            "digests": {**self.digests, "evaluation": evaluation},
        }

    def to_markdown(self) -> str:
        """The verdict and its reasons, those that speak against it first."""
        against = [reason for reason in self.reasons if not reason.passed]
        lines = [f"- **no**: {reason.sentence}" for reason in against]
        lines += [f"- yes: {reason.sentence}" for reason in self.reasons if reason.passed]
        verdict = "# The gate says yes" if self.passed else "# The gate says no"
        met = f"{len(self.reasons) - len(against)} of {len(self.reasons)} rules are met."
        return "\n".join([verdict, "", met, "", *lines, ""])


def decide(evaluation: Evaluation, policy: GatePolicy) -> Decision:
    """Judge what `evaluation.json` holds by `policy`: yes only where every rule is met."""
    rules: list[tuple[str, Rule]] = [
        ("test_products", _test_products),
        ("accuracy", _accuracy),
        ("gap", _gap),
        *((f"baseline:{name}", partial(_baseline, name)) for name in policy.baselines),
        ("recall", _recall),
        ("ece", _ece),
        ("champion", _champion),
        ("measured", _measured),
        ("consistent", _consistent),
    ]
    reasons = tuple(_reason(name, rule, evaluation, policy) for name, rule in rules)
    try:
        about = digests(evaluation)
    except UnmeasuredError:  # which the rule `measured` has told
        about = {}
    return Decision(all(reason.passed for reason in reasons), reasons, policy, about)


def check_digests(decision: Mapping[str, Any], artifacts: Mapping[str, str]) -> None:
    """Refuse to serve anything but what was judged and passed.

    Args:
        decision: what `Decision.to_json` gave.
        artifacts: digests of what is at hand, of `model`, `splits` and `evaluation`.

    Raises:
        BundleError: the decision is no, or is about another artifact than one of these.
    """
    if decision.get("passed") is not True:
        against = [each["sentence"] for each in decision.get("reasons", []) if not each["passed"]]
        why = " ".join(against) or "Its decision states no reason."
        raise BundleError(f"the gate said no, so this adapter is not served: {why}")
    judged = decision.get("digests", {})
    for name, here in artifacts.items():
        told = str(judged.get(name, "none"))
        if not here or told != here:
            raise BundleError(
                f"the decision is about another {name}: it names {told[:12]}, but this one is "
                f"{here[:12]}; evaluate this one and let the gate decide anew"
            )


# Whether a rule is met, and the sentence that says so.
Verdict = tuple[bool, str]
Rule = Callable[[Evaluation, GatePolicy], Verdict]


def _reason(name: str, rule: Rule, evaluation: Evaluation, policy: GatePolicy) -> Reason:
    """What a rule found; where it lacks what it needs, a no."""
    try:
        passed, sentence = rule(evaluation, policy)
    except UnmeasuredError as lack:
        return Reason(name, False, f"There is nothing to judge by: {lack}.")
    return Reason(name, passed, sentence)


def _test_products(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    tested, limit = count(evaluation, "metrics", "test", "products"), policy.min_test_products
    return tested >= limit, f"{tested:,} products were tested (limit {limit:,})."


def _accuracy(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    low, limit = share(evaluation, "metrics", "test", "accuracy_low"), policy.min_accuracy
    level = share(evaluation, "confidence")
    shown, edge = _apart(low, limit)
    return low >= limit, (
        f"Test accuracy is at least {shown} with {100 * level:g} % confidence (limit {edge})."
    )


def _gap(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    train = share(evaluation, "metrics", "train", "accuracy")
    test = share(evaluation, "metrics", "test", "accuracy")
    limit = policy.max_train_test_gap
    shown, edge = _apart(train - test, limit)
    return train - test <= limit + ROUNDING, (
        f"Train accuracy less test accuracy is {shown} (limit {edge})."
    )


def _baseline(name: str, evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    own, other, p, products = _paired(evaluation, "baselines", name)
    # Only what costs next to nothing to serve may be left ahead: the others know no product.
    margin, level = policy.linear_margin if name == "linear" else 0.0, _level(evaluation)
    better = own > other and p < level
    near = margin > 0 and own >= other - margin - ROUNDING
    limit = f"higher with p below {level:g}" + (f", or at most {margin:g} lower" if margin else "")
    return better or near, (
        f"Accuracy is {' against '.join(_apart(own, other))} of baseline {name} on the same "
        f"{products:,} products, {_chance(p, level)} (limit: {limit})."
    )


def _recall(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    limit, fewest = policy.min_department_recall, policy.min_department_support
    recall = {
        name: share(evaluation, "departments", name, "recall")
        for name in named(evaluation, "departments")
        if count(evaluation, "departments", name, "support") >= fewest
    }
    of = f"{_noun(evaluation)}s with {fewest:,} or more test products"
    if not recall:
        return True, f"There are no {of}, so none is judged on recall (limit {limit:.3f})."
    low = sorted((value, name) for name, value in recall.items() if value < limit)
    if low:
        told = [f"{_apart(value, limit)[0]} in {name}" for value, name in low]
        few = ", ".join(_first(told))
        return False, f"Recall of {len(low)} of {len(recall)} {of} is {few} (limit {limit:g})."
    worst = min(recall, key=lambda name: recall[name])
    shown, edge = _apart(recall[worst], limit)
    return True, f"The lowest recall of {len(recall)} {of} is {shown}, in {worst} (limit {edge})."


def _ece(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    error, limit = share(evaluation, "metrics", "test", "ece"), policy.max_ece
    shown, edge = _apart(error, limit)
    return error <= limit, f"The expected calibration error is {shown} (limit {edge})."


def _champion(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    if at(evaluation, "champion") is None:
        return True, "No champion is served, so there is none to beat: the rule is not applied."
    own, other, p, products = _paired(evaluation, "champion")
    tested = count(evaluation, "metrics", "test", "products")
    if products != tested:
        return False, f"The champion answered {products:,} test products (limit: all {tested:,})."
    return own > other, (
        f"Accuracy is {' against '.join(_apart(own, other))} of the champion on the same "
        f"{products:,} products, {_chance(p, _level(evaluation))} (limit: higher; a tie keeps the "
        "champion)."
    )


def _measured(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    total, wrong = measured(evaluation, policy.baselines)
    return not wrong, f"Values wanting: {len(wrong)} of {total} (limit 0){_listed(wrong)}."


def _consistent(evaluation: Evaluation, policy: GatePolicy) -> Verdict:
    faults = contradictions(evaluation, policy.baselines)
    return not faults, f"Contradictions in the counts: {len(faults)} (limit 0){_listed(faults)}."


def _noun(evaluation: Evaluation) -> str:
    """What a label is called; only a word, so its absence decides nothing."""
    told = evaluation.get("label")
    return told if isinstance(told, str) else "department"


def _listed(faults: Sequence[str]) -> str:
    """The first few of what is wrong, behind a colon."""
    return f": {'; '.join(_first(faults))}" if faults else ""


def _first(faults: Sequence[str], most: int = 5) -> list[str]:
    """The first few, and how many more there are."""
    more = [f"and {len(faults) - most} more"] if len(faults) > most else []
    return [*faults[:most], *more]


def _paired(evaluation: Evaluation, *keys: str) -> tuple[float, float, float, int]:
    """The model's accuracy, the other's, McNemar's p, and the number of products."""
    own = share(evaluation, *keys, "paired", "model_accuracy")
    other = share(evaluation, *keys, "paired", "baseline_accuracy")
    p_value = share(evaluation, *keys, "paired", "p_value")
    return own, other, p_value, count(evaluation, *keys, "paired", "products", least=1)


def _level(evaluation: Evaluation) -> float:
    """Level of significance tests, which goes with the level of the intervals."""
    return round(1 - share(evaluation, "confidence"), 12)


def _chance(p_value: float, level: float) -> str:
    """McNemar's p, told apart from the level of the test."""
    return "p < 0.001" if p_value < 0.001 else f"p = {_apart(p_value, level)[0]}"


def _apart(value: float, limit: float) -> tuple[str, str]:
    """Both with as many digits as tell them apart, three at least."""
    for digits_shown in range(3, 12):
        shown, edge = f"{value:.{digits_shown}f}", f"{limit:.{digits_shown}f}"
        if shown != edge or value == limit:
            break
    return shown, edge

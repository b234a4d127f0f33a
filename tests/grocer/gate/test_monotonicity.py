"""A worse metric never passes a rule that failed before."""

from hypothesis import assume, given
from hypothesis import strategies as st

from grocer.config.stages import GatePolicy
from grocer.gate.rules import decide
from tests.fixtures.evaluations import (
    COMPLETE,
    FLOATS,
    LABELS,
    NEWER,
    changed,
    evaluation,
    judged,
    parse,
    reason,
    value_at,
)

_losses = st.floats(0.1, 0.6)


@st.composite
def cases(draw):
    """A policy, a valid evaluation near its limits, and the same with one metric made worse."""
    # At least 45 of 300 are wrong, as a baseline may be correct on up to 41 of those.
    hits = [draw(st.integers(60, 85)) for _ in LABELS]
    wrong = draw(st.sampled_from(range(3)))
    limits = {
        "min_accuracy": draw(st.floats(0.5, 0.85)),
        "max_train_test_gap": draw(st.floats(0.0, 0.3)),
        "min_department_recall": draw(st.floats(0.5, 1.0)),
        "max_ece": draw(st.floats(0.0, 0.2)),
        "baselines": ("linear",),
        "champion_margin": draw(st.none() | st.floats(0.0, 0.1)),
    }
    if limits["champion_margin"] is not None:
        limits |= NEWER
    right = sum(hits)
    values = {
        "train": draw(st.integers(600, 999)),
        "low": draw(st.floats(0.7, 1.0)) * right / 300,
        "cluster_low": draw(st.floats(0.7, 1.0)) * right / 300,
        "ece": (draw(st.floats(-0.1, 0.2)), draw(st.floats(0.0, 0.2))),
        "linear": (draw(st.integers(1, 40)), draw(st.integers(0, 40))),
        "log_loss": draw(st.tuples(_losses, _losses, st.floats(0.0, 0.2))),
        "strategy": draw(st.sampled_from(["adapter", "ensemble", "cascade"])),
        "champion": draw(st.none() | st.tuples(st.integers(1, 30), st.integers(0, 9))),
    }
    worse = dict(values)
    fewer = list(hits)
    changes = ["low", "cluster_low", "ece", "train", "hit", "linear", "log_loss", "champion"]
    match draw(st.sampled_from(changes)):
        case "low" | "cluster_low" as name:
            worse[name] = values[name] * draw(st.floats(0.0, 1.0))
        case "ece":
            ece, p_value = values["ece"]
            worse["ece"] = draw(st.floats(ece, 1.0)), draw(st.floats(0.0, p_value))
        case "train":
            worse["train"] = draw(st.integers(values["train"], 1000))
        case "log_loss":
            model, baseline, p_value = values["log_loss"]
            model += draw(st.floats(0.0, 0.3))
            baseline -= draw(st.floats(0.0, baseline))
            # A difference that is closer to 0 is less significant.
            p_value = draw(st.floats(p_value if model < baseline else 0.0, 1.0))
            worse["log_loss"] = (model, baseline, p_value)
        case "hit":  # one more test product is wrong, for which each baseline was wrong or correct
            fewer[wrong] -= 1
            for name in ("linear", "champion"):
                if values[name]:
                    won, lost = values[name]
                    worse[name] = draw(st.sampled_from([(won - 1, lost), (won, lost + 1)]))
            for name in ("low", "cluster_low"):
                worse[name] = min(values[name], (right - 1) / 300)
        case other:
            assume(values[other])
            won, lost = values[other]
            worse[other] = draw(st.sampled_from([(won - 1, lost), (won, lost + 1)]))
    return GatePolicy(**limits), case_of(hits, values), case_of(fewer, worse)


def case_of(hits, values):
    matrix = [[0, 0, 0] for _ in hits]
    for index, hit in enumerate(hits):
        matrix[index][index], matrix[index][index - 1] = hit, 100 - hit
    return parse(evaluation(matrix, **values))


@given(cases())
def test_worse_metric_never_passes_a_failed_rule(case):
    limits, before, after = case
    old, new = decide(before, limits), decide(after, limits)
    assert reason(old, "measured").passed
    assert reason(old, "consistent").passed
    for old_reason, new_reason in zip(old.reasons, new.reasons, strict=True):
        assert old_reason.rule == new_reason.rule
        assert old_reason.passed or not new_reason.passed
    assert old.passed or not new.passed


@given(st.sampled_from(FLOATS), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_single_worse_value_never_passes_a_failed_decision(path, limit, value):
    """Also if it contradicts the other values, which fails the decision by itself."""
    better_low = {
        "ece",
        "ece_debiased",
        "log_loss",
        "model_log_loss",
        "p_value",
        "baseline_accuracy",
    }
    lower_is_better = path[-1] in better_low
    if path[:2] == ("metrics", "train") or "combination" in path or path[0] == "confidence":
        return
    now = value_at(COMPLETE, path)
    worse = max(now, value) if lower_is_better else min(now, value)
    limits = GatePolicy(min_accuracy=limit, max_ece=limit, min_department_recall=limit)
    assert (
        judged(COMPLETE, limits).passed or not judged(changed(COMPLETE, path, worse), limits).passed
    )

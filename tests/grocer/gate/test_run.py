"""The gate stage writes its decision, and a broken evaluation gives a failed one."""

import json

import pytest

from grocer.artifacts.decision import Decision
from grocer.artifacts.step import digest_of, step
from grocer.errors import BundleError
from grocer.gate.run import run, to_markdown
from tests.fixtures.evaluations import COMPLETE, LENIENT, evaluation, judged, policy

DIGESTS = {"model": "a" * 64, "splits": "b" * 64, "evaluation": "d" * 64}


@pytest.fixture
def evaluate(tmp_path):
    """Write an evaluate artifact with this content of evaluation.json; None: no such file."""

    def write(text):
        with step("evaluate", tmp_path / "evaluation") as out:
            if text is not None:
                (out / "evaluation.json").write_text(text)
        (tmp_path / "out").mkdir()
        return tmp_path / "evaluation"

    return write


def test_decision_is_written(evaluate, tmp_path):
    source = evaluate(json.dumps(COMPLETE))
    decision = run(source, LENIENT, tmp_path / "out")
    assert decision.passed
    assert decision.digests == {**DIGESTS, "evaluation": digest_of(source)}
    assert Decision.read(tmp_path / "out").model_dump() == decision.model_dump()
    assert (tmp_path / "out" / "decision.md").read_text() == to_markdown(decision)
    content = json.loads((tmp_path / "out" / "decision.json").read_text())
    assert content["reasons"][0] == {
        "rule": "test_products",
        "passed": True,
        "sentence": "Test products: 300 (minimum 200).",
    }
    assert content["policy"] == LENIENT.model_dump(mode="json")


@pytest.mark.parametrize("text", [None, "", "{", "[]", "\0", json.dumps(COMPLETE)[:-1]])
def test_broken_evaluation_gives_a_failed_decision(evaluate, tmp_path, text):
    source = evaluate(text)
    decision = run(source, LENIENT, tmp_path / "out")
    assert not decision.passed
    assert decision.digests == {"evaluation": digest_of(source)}
    assert not Decision.read(tmp_path / "out").passed


def test_markdown_lists_failed_rules_first():
    lines = to_markdown(judged(evaluation(ece=(0.3, 0.01)))).splitlines()
    assert lines[:5] == [
        "# Gate failed",
        "",
        "10 of 11 rules passed.",
        "",
        "- **failed**: Expected calibration error, debiased: 0.300 (maximum 0.100), p = 0.010 "
        "(fails above the maximum with p < 0.05).",
    ]
    assert lines[5] == "- passed: Test products: 300 (minimum 200)."
    assert len(lines) == 4 + 11
    assert to_markdown(judged(evaluation())).startswith("# Gate passed\n")


def decided(content, limits=LENIENT):
    return judged(content, limits).model_copy(update={"digests": DIGESTS})


def test_judged_artifacts_may_be_deployed():
    decided(evaluation()).require_passed(DIGESTS)
    decided(evaluation()).require_passed({})


@pytest.mark.parametrize("name", DIGESTS)
def test_other_artifacts_may_not_be_deployed(name):
    digests = f"its digest is {DIGESTS[name][:12]}, this one's is f{{12}}"
    next_step = "evaluate this one and run the gate again"
    with pytest.raises(BundleError, match=f"about another {name}: {digests}; {next_step}"):
        decided(evaluation()).require_passed({**DIGESTS, name: "f" * 64})
    rest = {key: digest for key, digest in DIGESTS.items() if key != name}
    with pytest.raises(BundleError, match=f"about another {name}: its digest is missing"):
        decided(evaluation()).model_copy(update={"digests": rest}).require_passed(DIGESTS)


def test_failed_decision_may_not_be_deployed():
    failed = decided(evaluation(ece=(0.3, 0.01)), policy(min_test_products=301))
    with pytest.raises(BundleError, match=r"gate failed.*: Test products: 300.* Expected calib"):
        failed.require_passed({})

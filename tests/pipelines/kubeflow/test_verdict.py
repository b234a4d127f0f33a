"""Protects that what the gate prints is what `grocer submit` reads, rule by rule."""

from grocer.config.stages import GatePolicy
from grocer.gate.rules import decide
from grocer.gate.run import to_markdown
from pipelines.kubeflow.verdict import Verdict, reasons_in, told
from tests.fixtures.evaluations import evaluation, parse


def test_the_reasons_come_back_from_what_the_gate_prints():
    decided = decide(parse(evaluation(ece=0.3)), GatePolicy())
    assert not decided.passed
    log = f"I1125 12:00:00.1 1 launcher.go:1] x\n{to_markdown(decided)}\ngrocer | gate | no\n"
    found = reasons_in(log)
    key = lambda each: each["sentence"]  # noqa: E731
    expected = [{"passed": r.passed, "sentence": r.sentence} for r in decided.reasons]
    assert sorted(found, key=key) == sorted(expected, key=key)
    assert {each["passed"] for each in found} == {True, False}


def test_what_speaks_against_it_comes_first_and_long_sentences_are_wrapped():
    reasons = [
        {"passed": True, "sentence": "Good."},
        {"passed": False, "sentence": "word " * 12},
    ]
    lines = [line.plain for line in told(Verdict(False, reasons), "yes", "no", width=42)]
    assert lines == ["no", "✗ " + "word " * 7 + "word", "  word word word word", "✓ Good."]


def test_a_log_without_reasons_has_none():
    assert reasons_in("Traceback\n- passed\n- failed: nothing\n") == []

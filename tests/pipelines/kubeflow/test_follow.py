"""Protects the way from a run's states and logs to its verdict, its reasons and an exit code."""

import time

import pytest

from pipelines.cli.main import execute
from pipelines.kubeflow import follow as module
from tests.fixtures.kubeflow_server import Kubeflow

STORE = ("--set", "deploy.store=s3://bucket/bundles")
GOOD = dict.fromkeys(
    ("ingest", "validate", "build-dataset", "train", "find-champion", "evaluate", "gate"),
    "SUCCEEDED",
)
YES = ("SUCCEEDED", {**GOOD, "condition-1": "SUCCEEDED", "deploy": "SUCCEEDED"})
NO = ("SUCCEEDED", {**GOOD, "condition-1": "SKIPPED"})
GATE = """\
I1125 17:00:00.000000      1 launcher_v2.go:187] publish success.
# The gate says no

1 of 2 rules are met.

- **no**: Test accuracy is at least 0.712 with 95 % confidence (limit 0.850).
- yes: 4,000 products were tested (limit 200).

grocer | gate | not passed
"""
TRAIN = """\
I1125 17:00:00.000000      1 main.go:67] Setting log level
grocer | train | 10/20 steps · 3.0/s · 3 s left
grocer | train | fp16: compute capability 7.5 has no bf16
"""
BROKEN = """\
I1125 17:00:00.000000      1 main.go:67] Setting log level
Traceback (most recent call last):
ZeroDivisionError: a bug of ours
F1125 17:00:09.000000      1 main.go:50] failed to execute component: exit status 1
"""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def submit(server, *options):
    data = ("--data", "s3://bucket/instacart")
    return execute(["submit", *data, *STORE, "--host", server.url, *options])


def test_a_run_is_followed_to_its_yes(capsys):
    script = [
        ("PENDING", {}),
        ("RUNNING", {"ingest": "RUNNING", "ingest-driver": "SUCCEEDED"}),
        YES,
    ]
    with Kubeflow(script, logs={"train": TRAIN, "gate": GATE.replace("**no**", "yes")}) as server:
        assert submit(server) == 0
    told = capsys.readouterr()
    assert told.err == ""
    page, *lines = told.out.splitlines()
    assert page.startswith(f"{server.url}/#/runs/details/")
    ended = [line.split()[1] for line in lines if line.startswith("✓") and line.endswith(" 75 s")]
    assert ended == [*GOOD, "deploy"]
    assert "  train          fp16: compute capability 7.5 has no bf16" in lines
    assert not any("10/20" in line for line in lines)
    assert lines[-3].split() == ["Verdict", "yes:", "deployed"]
    assert lines[-2].endswith(
        "✓ Test accuracy is at least 0.712 with 95 % confidence (limit 0.850)."
    )


def test_a_no_is_told_with_its_reasons(capsys):
    with Kubeflow([NO], logs={"gate": GATE}) as server:
        assert submit(server) == 3
    lines = capsys.readouterr().out.splitlines()
    assert "– deploy         skipped: the gate said no" in lines
    assert lines[-3].split() == ["Verdict", *["no:", "nothing", "new", "is", "served"]]
    assert lines[-2].strip().startswith("✗ Test accuracy is at least 0.712")
    assert lines[-1].strip().startswith("✓ 4,000 products were tested")


def test_a_no_that_fails_the_run_is_still_a_no(capsys):
    steps = {**GOOD, "fail-run": "FAILED"}
    with Kubeflow([("FAILED", steps)], logs={"gate": GATE}) as server:
        assert submit(server, "--set", "cluster.fail_if_gate_fails=true") == 3
    assert "✗ Test accuracy is at least 0.712" in capsys.readouterr().out


def test_without_a_log_of_the_gate_its_verdict_stands(capsys):
    with Kubeflow([NO]) as server:
        assert submit(server) == 3
    assert "keeps no log of the step gate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--canary", "20"), "yes: a canary, with 20 % of the requests beside what serves"),
        (("--no-deploy",), "yes: it may serve; nothing was rolled out"),
    ],
)
def test_a_yes_says_what_became_of_it(capsys, options, said):
    with Kubeflow([YES]) as server:
        assert submit(server, *options) == 0
    assert said in capsys.readouterr().out


def test_a_mistake_of_the_users_is_the_steps_own_line(capsys):
    log = "grocer ! validate | products: 3 names are empty (limit 0)\nTraceback\n"
    steps = {"ingest": "SUCCEEDED", "validate": "FAILED"}
    with Kubeflow([("FAILED", steps)], logs={"validate": log}) as server:
        assert submit(server) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith(
        "grocer: validate: products: 3 names are empty (limit 0); its page: http://"
    )
    assert "✗ validate       75 s" in told.out


def test_a_bug_shows_the_last_lines_of_its_step(capsys):
    with Kubeflow([("FAILED", {"ingest": "FAILED"})], logs={"ingest": BROKEN}) as server:
        assert submit(server) == 1
    *last, line = capsys.readouterr().err.splitlines()
    assert last == ["Traceback (most recent call last):", "ZeroDivisionError: a bug of ours"]
    assert line.startswith("grocer: ingest broke; its page: http://")


@pytest.mark.parametrize("step", ["train", "train-driver"])
def test_a_step_that_could_not_speak_is_named(capsys, step):
    with Kubeflow([("FAILED", {"ingest": "SUCCEEDED", step: "FAILED"})]) as server:
        assert submit(server) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "grocer: train broke and left no log: see its pod's events, and its page"
    )


def test_a_run_that_fails_as_a_whole_says_so(capsys):
    with Kubeflow([("FAILED", {})]) as server:
        assert submit(server) == 1
    assert "grocer: the run ended FAILED" in capsys.readouterr().err


@pytest.mark.parametrize("ended", ["FAILED", "CANCELED"])
def test_a_canceled_run_ends_the_following(capsys, ended):
    steps = {"ingest": "FAILED"}
    script = [("RUNNING", {"ingest": "RUNNING"}), ("CANCELING", steps), (ended, steps)]
    with Kubeflow(script) as server:
        assert submit(server) == 1
    assert "grocer: the run was canceled; its page" in capsys.readouterr().err


def test_a_server_that_is_away_for_a_while_ends_nothing(capsys):
    with Kubeflow([YES]) as server:
        server.failing = module.PATIENCE - 1
        assert submit(server) == 0
        server.failing = module.PATIENCE
        assert submit(server) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "(503)" in line

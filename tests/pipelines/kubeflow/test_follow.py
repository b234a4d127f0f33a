"""A run on Kubeflow is followed from its steps' states and events to a verdict and exit code."""

import time

import pytest

from pipelines.cli.main import execute
from pipelines.kubeflow import follow as module
from tests.fixtures.kubeflow_server import Kubeflow, event

STORE = ("--set", "deploy.store=s3://bucket/bundles")
TASKS = ("ingest", "validate", "build-dataset", "train", "find-champion", "evaluate", "gate")
SUCCEEDED = dict.fromkeys(TASKS, "SUCCEEDED")
PASSED = ("SUCCEEDED", {**SUCCEEDED, "condition-1": "SUCCEEDED", "deploy": "SUCCEEDED"})
FAILED = ("SUCCEEDED", {**SUCCEEDED, "condition-1": "SKIPPED"})
LAUNCHER = "I1125 17:00:00.000000      1 launcher_v2.go:187] publish success.\n"
ACCURACY = "Test accuracy is at least 0.712 (limit 0.850)."
SIZE = "4,000 products were tested (limit 200)."


def gate_log(passed):
    reasons = [
        {"rule": "test_size", "passed": True, "sentence": SIZE},
        {"rule": "accuracy", "passed": passed, "sentence": ACCURACY},
    ]
    return LAUNCHER + event("verdict", "gate", passed=passed, reasons=reasons) + LAUNCHER


TRAIN = (
    LAUNCHER
    + event("progress", "train", text="10/20 steps", done=10, total=20)
    + event("message", "train", text="fp16: compute capability 7.5 has no bf16")
    + "grocer | train | fp16: compute capability 7.5 has no bf16\n"
)
TRACEBACK = "Traceback (most recent call last):\nZeroDivisionError: internal\n"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def submit(server, *options):
    data = ("--data", "s3://bucket/instacart")
    return execute(["submit", *data, *STORE, "--host", server.url, *options])


def test_run_is_followed_until_the_gate_passes(capsys):
    script = [
        ("PENDING", {}),
        ("RUNNING", {"ingest": "RUNNING", "ingest-driver": "SUCCEEDED"}),
        PASSED,
    ]
    with Kubeflow(script, logs={"train": TRAIN, "gate": gate_log(True)}) as server:
        assert submit(server) == 0
    output = capsys.readouterr()
    assert output.err == ""
    page, *lines = output.out.splitlines()
    assert page.startswith(f"{server.url}/#/runs/details/")
    ended = [line.split()[1] for line in lines if line.startswith("✓") and line.endswith(" 75.0 s")]
    assert ended == [*(task.replace("-", "_") for task in TASKS), "deploy"]
    messages = [line for line in lines if "compute capability" in line]
    assert [line.split()[0] for line in messages] == ["train"]
    assert not any("10/20" in line for line in lines)
    assert lines[-3].split() == ["Gate", "passed:", "deployed"]
    assert lines[-2].strip() == f"✓ {SIZE}"
    assert lines[-1].strip() == f"✓ {ACCURACY}"


def test_messages_of_a_running_step_are_shown_once(capsys):
    waiting = event("message", "train", text="waiting for quota of the LocalQueue team-a")
    running = ("RUNNING", {"train": "RUNNING"})
    logs = {"train": waiting + TRAIN, "gate": gate_log(True)}
    with Kubeflow([running, running, PASSED], logs=logs) as server:
        server.running_logs = {"train": LAUNCHER + waiting}
        assert submit(server) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    of_train = [line for line in lines if "train" in line[:2]]
    assert [line[-1] for line in of_train] == ["team-a", "bf16", "s"]


def test_failed_gate_is_shown_with_its_reasons(capsys):
    with Kubeflow([FAILED], logs={"gate": gate_log(False)}) as server:
        assert submit(server) == 3
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("– deploy") for line in lines)
    assert lines[-3].split() == ["Gate", "failed:", "nothing", "deployed"]
    assert lines[-2].strip() == f"✗ {ACCURACY}"
    assert lines[-1].strip() == f"✓ {SIZE}"


def test_failed_gate_that_fails_the_run_has_its_own_exit_code(capsys):
    steps = {**SUCCEEDED, "fail-run": "FAILED"}
    with Kubeflow([("FAILED", steps)], logs={"gate": gate_log(False)}) as server:
        assert submit(server, "--set", "cluster.fail_if_gate_fails=true") == 3
    assert f"✗ {ACCURACY}" in capsys.readouterr().out


@pytest.mark.parametrize("log", [{}, {"gate": "grocer | gate | FAILED: of an earlier version\n"}])
def test_verdict_does_not_need_the_gates_log(capsys, log):
    with Kubeflow([FAILED], logs=log) as server:
        assert submit(server) == 3
    assert "did not keep the gate's log" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        (("--canary", "20"), "passed: canary deployed with 20 % of the traffic"),
        (("--no-deploy",), "passed: not deployed"),
    ],
)
def test_passed_gate_says_what_was_deployed(capsys, options, outcome):
    with Kubeflow([PASSED]) as server:
        assert submit(server, *options) == 0
    assert outcome in capsys.readouterr().out


@pytest.mark.parametrize(
    ("promoted", "outcome"), [(True, "passed: deployed"), (False, "failed: rolled back")]
)
def test_verdict_of_a_canary_analysis(capsys, promoted, outcome):
    reasons = [{"rule": "error_rate", "passed": promoted, "sentence": "errors: 4 %"}]
    log = event("verdict", "deploy", passed=promoted, reasons=reasons)
    with Kubeflow([PASSED], logs={"gate": gate_log(True), "deploy": log}) as server:
        assert submit(server, "--canary", "5,25", "--analysis") == (0 if promoted else 3)
    *_, verdict, reason = capsys.readouterr().out.splitlines()
    assert verdict.split(maxsplit=1) == ["Canary", outcome]
    assert "errors: 4 %" in reason


def test_rolled_back_canary_that_fails_the_run_has_the_exit_code_of_the_gate(capsys):
    log = event("verdict", "deploy", passed=False, reasons=[])
    log += event("failed", "deploy", text="rolled back", user_error=True)
    failed = ("FAILED", {**PASSED[1], "deploy": "FAILED"})
    with Kubeflow([failed], logs={"gate": gate_log(True), "deploy": log}) as server:
        assert submit(server, "--canary", "5", "--analysis") == 3
    assert "failed: rolled back" in capsys.readouterr().out


def test_unknown_result_of_an_analysis_is_an_error(capsys):
    with Kubeflow([PASSED], logs={"gate": gate_log(True)}) as server:
        assert submit(server, "--canary", "5", "--analysis") == 1
    assert "grocer status" in capsys.readouterr().err


def test_user_error_is_reported_in_one_line(capsys):
    failed = event("failed", "validate", text="products: 3 names are empty", user_error=True)
    steps = {"ingest": "SUCCEEDED", "validate": "FAILED"}
    with Kubeflow([("FAILED", steps)], logs={"validate": failed + TRACEBACK}) as server:
        assert submit(server) == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert "validate" in line
    assert "products: 3 names are empty; see http://" in line
    assert "✗ validate       75.0 s" in output.out


def test_internal_error_shows_the_end_of_the_log(capsys):
    failed = event("failed", "ingest", text="ZeroDivisionError: internal")
    log = LAUNCHER * 20 + failed + TRACEBACK
    with Kubeflow([("FAILED", {"ingest": "FAILED"})], logs={"ingest": log}) as server:
        assert submit(server) == 1
    *tail, line = capsys.readouterr().err.splitlines()
    assert len(tail) == module.TAIL
    assert tail[-2:] == TRACEBACK.splitlines()
    assert line.startswith("grocer: step ingest failed: ZeroDivisionError: internal; see http://")


@pytest.mark.parametrize(
    ("steps", "log", "lines"),
    [
        (
            {"train": "FAILED"},
            event("started", "train") + "Killed\n",
            ["Killed", "grocer: step train failed; see http://"],
        ),
        *(
            (
                {"ingest": "SUCCEEDED", step: "FAILED"},
                "",
                ["grocer: step train failed without a log: see its pod's events"],
            )
            for step in ("train", "train-driver")
        ),
        ({}, "", ["grocer: run ended in state FAILED"]),
    ],
)
def test_failure_without_an_event_is_explained_as_far_as_it_is_known(capsys, steps, log, lines):
    with Kubeflow([("FAILED", steps)], logs={"train": log} if log else {}) as server:
        assert submit(server) == 1
    for line, start in zip(capsys.readouterr().err.splitlines(), lines, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize("final", ["FAILED", "CANCELED"])
def test_canceled_run_is_an_error(capsys, final):
    steps = {"ingest": "FAILED"}
    script = [("RUNNING", {"ingest": "RUNNING"}), ("CANCELING", steps), (final, steps)]
    with Kubeflow(script) as server:
        assert submit(server) == 1
    assert "grocer: run canceled; see http://" in capsys.readouterr().err


def test_server_may_be_unavailable_for_a_while(capsys):
    with Kubeflow([PASSED]) as server:
        server.failing = module.MAX_FAILED_POLLS - 1
        assert submit(server) == 0
        server.failing = module.MAX_FAILED_POLLS
        assert submit(server) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "(503)" in line

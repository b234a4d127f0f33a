"""Submitting to Kubeflow Pipelines, over HTTP against a stand-in of its REST API."""

import time

import pytest

from grocer.recipes import recipe
from pipelines import submit as module
from pipelines.cli import execute
from tests.pipelines.kubeflow import Kubeflow

DATA = ("--data", "s3://bucket/instacart")
GOOD = dict.fromkeys(("ingest", "validate", "prompts", "train", "evaluate", "gate"), "SUCCEEDED")
YES = ("SUCCEEDED", {**GOOD, "condition-1": "SUCCEEDED", "deploy": "SUCCEEDED"})
NO = ("SUCCEEDED", {**GOOD, "condition-1": "SKIPPED"})


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def submit(server, *options):
    return execute(["submit", *DATA, "--host", server.url, *options])


@pytest.mark.parametrize(("end", "code", "said"), [(YES, 0, "yes: deployed"), (NO, 3, "no: ")])
def test_a_run_is_started_and_followed_to_its_verdict(capsys, end, code, said):
    with Kubeflow([("PENDING", {}), ("RUNNING", {"ingest": "RUNNING"}), end]) as server:
        assert submit(server, "--set", "gate.min_accuracy=0.5", "--service-account", "me") == code
        (run,) = server.runs.values()
        (version,) = [v for v in server.versions.values() if v["display_name"] != "grocer"]
    told = capsys.readouterr()
    assert said in told.out
    assert f"{server.url}/#/runs/details/{run['run_id']}" in told.out
    assert told.err == ""
    assert run["pipeline_version_reference"] == {
        "pipeline_id": version["pipeline_id"],
        "pipeline_version_id": version["pipeline_version_id"],
    }
    assert run["service_account"] == "me"
    given = run["runtime_config"]["parameters"]
    config = recipe("llama2-7b-t4").with_settings(["gate.min_accuracy=0.5"])
    assert given == {"data": DATA[1], "config": config.to_json()}


def test_the_same_pipeline_is_uploaded_once():
    with Kubeflow([YES]) as server:
        for settings in ((), (), ("--set", "gate.min_accuracy=0.5")):
            assert submit(server, *settings) == 0
        assert (len(server.pipelines), len(server.runs), len(server.experiments)) == (1, 3, 1)
        assert len(server.versions) == 3  # kfp's first, and one for each configuration


def test_a_failed_run_names_its_step(capsys):
    with Kubeflow([("FAILED", {"ingest": "SUCCEEDED", "validate": "FAILED"})]) as server:
        assert submit(server) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("grocer: the run ended FAILED: validate failed; its page: http")


def test_a_canceled_run_ends_the_following():
    with Kubeflow([("CANCELED", {})]) as server:
        assert submit(server) == 1


def test_a_server_that_is_away_for_a_while_ends_nothing(capsys):
    with Kubeflow([YES]) as server:
        server.failing = module.PATIENCE - 1
        assert submit(server) == 0
        server.failing = module.PATIENCE
        assert submit(server) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "refused (503)" in line


def test_a_step_that_is_retried_shows_its_last_state():
    class Detail:
        def __init__(self, state, created):
            self.display_name, self.state, self.create_time = "train", state, created

    class Run:
        class run_details:  # noqa: N801
            task_details = (Detail("SUCCEEDED", "2"), Detail("FAILED", "1"))

    assert module._steps(Run) == {"train": "SUCCEEDED"}


def test_without_following_the_run_is_only_started(capsys):
    with Kubeflow([]) as server:
        assert submit(server, "--no-follow") == 0
        assert len(server.runs) == 1


def test_a_token_comes_from_the_environment(monkeypatch, capsys):
    with Kubeflow([YES], token="secret") as server:
        monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret")
        assert submit(server) == 0
        monkeypatch.setenv("KF_PIPELINES_TOKEN", "wrong")
        assert submit(server, "--namespace", "mine") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "refused (401)" in line
    assert "a token is taken from KF_PIPELINES_TOKEN" in line
    assert "wrong" not in line


@pytest.mark.parametrize("data", ["./catalogue", "/data", "file:///data"])
def test_a_path_of_this_machine_is_refused(capsys, data):
    assert execute(["submit", "--data", data, "--host", "http://127.0.0.1:9"]) == 2
    assert "a pod can't read a path of this machine" in capsys.readouterr().err


def test_nobody_there_is_one_line(capsys):
    assert execute(["submit", *DATA, "--host", "http://127.0.0.1:9"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no Kubeflow Pipelines answers at http://127.0.0.1:9" in line


def schedule(server, *options):
    return execute(["schedule", *DATA, "--host", server.url, *options])


def test_a_schedule_is_made_once_and_replaced_when_asked(capsys):
    with Kubeflow() as server:
        assert schedule(server, "--cron", "0 3 * * 1") == 0
        assert schedule(server, "--cron", "0 4 * * 1") == 2
        assert "there is such a schedule; give --replace" in capsys.readouterr().err
        assert schedule(server, "--cron", "0 4 * * 1", "--replace") == 0
        (made,) = server.schedules.values()
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * 1"
    assert made["max_concurrency"] == 1
    assert made["no_catchup"] is True


def test_what_is_no_cron_expression_is_refused(capsys):
    with Kubeflow() as server:
        assert schedule(server, "--cron", "weekly") == 2
        assert server.schedules == {}
    assert "expected 5 fields" in capsys.readouterr().err

"""Protects the way to Kubeflow's server: whose token is shown, and what a refusal says."""

import time

import pytest

from pipelines.cli.main import execute
from tests.fixtures.kubeflow_server import Kubeflow

DATA = ("--data", "s3://bucket/instacart", "--no-deploy", "--no-follow")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def submit(host, *options):
    return execute(["submit", *DATA, "--host", host, *options])


def test_a_token_comes_from_the_environment(monkeypatch, capsys):
    with Kubeflow(token="secret") as server:
        monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret")
        assert submit(server.url) == 0
        monkeypatch.setenv("KF_PIPELINES_TOKEN", "wrong")
        assert submit(server.url, "--namespace", "mine") == 2
        monkeypatch.setenv("OTHER", "secret")
        assert submit(server.url, "--token-env", "OTHER") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "refused (401)" in line
    assert "a token is taken from KF_PIPELINES_TOKEN" in line
    assert "wrong" not in line


def test_a_pod_shows_its_own_token(monkeypatch, tmp_path):
    token = tmp_path / "token"
    token.write_text("of the pod")
    monkeypatch.delenv("KF_PIPELINES_TOKEN", raising=False)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    with Kubeflow(token="of the pod") as server:
        assert submit(server.url) == 0


def test_the_environment_may_name_the_host(monkeypatch):
    with Kubeflow() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        assert execute(["submit", *DATA]) == 0
        assert len(server.runs) == 1


def test_nobody_there_is_one_line(capsys):
    assert submit("http://127.0.0.1:9") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no Kubeflow Pipelines answers at http://127.0.0.1:9" in line

"""Connecting to Kubeflow Pipelines: tokens, hosts and errors."""

import time

import pytest

from pipelines.cli.main import execute
from tests.fixtures.kubeflow_server import Kubeflow

DATA = ("--data", "s3://bucket/instacart", "--no-deploy", "--no-follow")


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def submit(host, *options):
    return execute(["submit", *DATA, "--host", host, *options])


def test_token_from_environment(monkeypatch, capsys):
    with Kubeflow(token="secret") as server:
        monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret")
        assert submit(server.url) == 0
        monkeypatch.setenv("KF_PIPELINES_TOKEN", "wrong")
        assert submit(server.url, "--namespace", "mine") == 2
        monkeypatch.setenv("OTHER", "secret")
        assert submit(server.url, "--token-env", "OTHER") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "(401)" in line
    assert "set KF_PIPELINES_TOKEN" in line
    assert "wrong" not in line


def test_projected_token_of_a_pod(monkeypatch, tmp_path):
    token = tmp_path / "token"
    token.write_text("projected")
    monkeypatch.delenv("KF_PIPELINES_TOKEN", raising=False)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(token))
    with Kubeflow(token="projected") as server:
        assert submit(server.url) == 0


def test_host_from_environment(monkeypatch):
    with Kubeflow() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        assert execute(["submit", *DATA]) == 0
        assert len(server.runs) == 1


def test_unreachable_server_is_one_line(capsys):
    assert submit("http://127.0.0.1:9") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Kubeflow Pipelines at http://127.0.0.1:9 unreachable" in line

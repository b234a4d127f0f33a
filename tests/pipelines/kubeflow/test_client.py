"""Connecting to Kubeflow Pipelines: tokens, hosts and errors."""

import shutil
import ssl
import subprocess
import threading
from unittest.mock import Mock

import pytest
from kubernetes.config import kube_config
from urllib3.util import Retry

from pipelines.cli.main import execute
from pipelines.doctor.cluster import kubeflow
from pipelines.kubeflow.client import RESPONSE_SECONDS, Server, read_running_log
from tests.fixtures.http_server import Handler
from tests.fixtures.kubeflow_server import Kubeflow

DATA = ("--data", "s3://bucket/instacart", "--no-deploy", "--no-follow")


def submit(host, *options):
    return execute(["submit", *DATA, "--host", host, *options])


def test_token_from_environment(monkeypatch, user_error):
    with Kubeflow(token="secret") as server:
        monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret\r\n")
        assert submit(server.url) == 0
        monkeypatch.setenv("KF_PIPELINES_TOKEN", "sec…")
        line = user_error("submit", *DATA, "--host", server.url)
        assert "KF_PIPELINES_TOKEN: expected a bearer token" in line
        assert "sec…" not in line
        monkeypatch.setenv("KF_PIPELINES_TOKEN", "wrong")
        line = user_error("submit", *DATA, "--host", server.url, "--namespace", "mine")
        monkeypatch.setenv("OTHER", "secret")
        assert submit(server.url, "--token-env", "OTHER") == 0
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


@pytest.mark.parametrize("options", [(), ("--namespace", "mine")])
@pytest.mark.parametrize("content", ["<html>Sign in</html>", b"\xff", "[]"])
def test_server_that_is_not_kubeflow(serve, user_error, content, options):
    class LoginPage(Handler):
        def do_GET(self):
            self.reply(200, content, {"content-type": "text/html"})

    line = user_error("submit", *DATA, "--host", serve(LoginPage), *options)
    assert "not Kubeflow Pipelines (its response is text/html)" in line
    assert "KF_PIPELINES_TOKEN" in line


def test_server_that_answers_everything_with_an_empty_object(serve, user_error):
    class Empty(Handler):
        def do_GET(self):
            self.reply(200, "{}", {"content-type": "application/json"})

        do_POST = do_GET

    url = serve(Empty)
    assert f"{url}: unexpected response" in user_error("submit", *DATA, "--host", url)


def test_login_page_after_the_token_has_expired(serve, user_error):
    class Expired(Handler):
        def do_GET(self):
            is_healthy = self.path.endswith("/healthz")
            kind = "application/json" if is_healthy else "text/html; charset=utf-8"
            self.reply(200, "{}" if is_healthy else "<html>Sign in</html>", {"content-type": kind})

    url = serve(Expired)
    line = user_error("submit", *DATA, "--host", url)
    assert f"--host {url}: not Kubeflow Pipelines (its response is text/html" in line


@pytest.mark.parametrize("healthy", [True, False])
def test_server_that_does_not_respond(serve, user_error, monkeypatch, healthy):
    ended = threading.Event()

    class Stalled(Handler):
        def do_GET(self):
            if healthy and self.path.endswith("/healthz"):
                self.reply(200, "{}", {"content-type": "application/json"})
            else:
                ended.wait()
                self.close_connection = True

    monkeypatch.setattr("pipelines.kubeflow.client.RESPONSE_SECONDS", 4)
    assert "unreachable: timed out" in user_error("submit", *DATA, "--host", serve(Stalled))
    ended.set()


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_time_limit_of_a_response_includes_repeated_requests(method):
    client = Server(host="http://127.0.0.1:9").connect(check=False)
    rest = client.healthzs.api_client.rest_client
    rest.pool_manager = Mock()
    rest.pool_manager.request.return_value = Mock(status=200, headers={})
    rest.request(method, "http://127.0.0.1:9")
    attempts = 1 + Retry.DEFAULT.total * (method in Retry.DEFAULT_ALLOWED_METHODS)
    timeout = rest.pool_manager.request.call_args.kwargs["timeout"]
    assert timeout.total * attempts == RESPONSE_SECONDS


def test_log_that_ends_early_is_empty(serve):
    class Restarted(Handler):
        def do_GET(self):
            self.reply(200, b"line\n", {"content-length": "9"})

    client = Server(host=serve(Restarted)).connect(check=False)
    assert read_running_log(client, "run", "node") == ""


@pytest.mark.skipif(shutil.which("openssl") is None, reason="requires openssl")
def test_certificate_authority_of_the_server(user_error, monkeypatch, tmp_path):
    ca, certificate = tmp_path / "ca.pem", tmp_path / "server.pem"
    names = ["-subj", "/CN=kubeflow", "-addext", "subjectAltName=IP:127.0.0.1"]
    options = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", certificate, "-out", ca]
    subprocess.run(["openssl", *options, *names], check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + ca.read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Kubeflow()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    host = server.url.replace("http:", "https:")
    with server:
        assert "set SSL_CERT_FILE" in user_error("submit", *DATA, "--host", host)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent"))
        assert "set SSL_CERT_FILE" in user_error("submit", *DATA, "--host", host)
        (finding,) = kubeflow(Server(host=host), False)
        assert "set SSL_CERT_FILE" in finding.next
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        assert submit(host) == 0


def test_no_certificate_authority_helps_if_the_name_does_not_match():
    text = "certificate verify failed: Hostname mismatch, certificate is not valid for 'kubeflow'"
    assert Server().hint(ssl.SSLCertVerificationError(text)) == ""


def test_rejected_request_is_not_repeated(serve, capsys):
    requests = []

    class Forbidden(Handler):
        def do_GET(self):
            requests.append(self.path)
            self.reply(403)

    assert submit(serve(Forbidden)) == 2
    assert "(403)" in capsys.readouterr().err
    assert len(requests) == 1


def test_missing_host_is_named(user_error, monkeypatch):
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", "/absent")
    assert "pass --host" in user_error("submit", *DATA)


def test_host_without_a_scheme_is_taken_for_https(user_error):
    with Kubeflow() as server:
        line = user_error("submit", *DATA, "--host", server.url.removeprefix("http://"))
    assert "pass --host with http://" in line


def test_unreachable_server_is_one_line(user_error):
    line = user_error("submit", *DATA, "--host", "http://127.0.0.1:9")
    assert "Kubeflow Pipelines at http://127.0.0.1:9 unreachable" in line

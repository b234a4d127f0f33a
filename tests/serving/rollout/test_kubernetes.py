"""Errors of the Kubernetes API, restarted watches, and connection settings."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from grocer.errors import DeployError
from grocer.release.bundle import LoadedBundle
from serving.rollout import kubernetes
from serving.rollout.kubernetes import Cluster, NoKubeconfigError, connect
from tests.fixtures.http_server import Handler, Serve
from tests.fixtures.kubernetes_api import NOT_READY, Api, api_status, write_kubeconfig

# Messages of Kubernetes 1.36.
CONFLICT = (
    'Apply failed with 2 conflicts: conflicts with "kubectl-edit" using serving.kserve.io/v1beta1:'
    '\n- .spec.predictor.model.storageUri\n- .spec.predictor.model.env[name="GROCER_BUNDLE_DIGEST"]'
    ".value"
)
FORBIDDEN = (
    'inferenceservices.serving.kserve.io "grocer" is forbidden: User "system:serviceaccount:'
    'kubeflow:grocer-pipeline" cannot patch resource "inferenceservices" in API group '
    '"serving.kserve.io" in the namespace "grocer"'
)


@pytest.mark.parametrize(
    ("code", "status", "fragments"),
    [
        (
            409,
            api_status(CONFLICT, "grocer", "FieldManagerConflict"),
            r"\(409\): .*\"kubectl-edit\".*storageUri - .*; release ownership",
        ),
        (403, api_status(FORBIDDEN), r"\(403\): .*cannot patch.*; .*Role grocer-deploy"),
        (400, api_status("admission webhook denied the request"), r"\(400\): admission webhook"),
        (401, api_status("Unauthorized"), r"\(401\): Unauthorized; log in again"),
        (403, api_status('User "system:anonymous" cannot patch'), r"\(403\): .*; log in again"),
    ],
)
def test_api_errors_are_one_line_with_the_next_step(
    api: Api, stub_bundle: LoadedBundle, code: int, status: dict[str, Any], fragments: str
) -> None:
    api.patch_errors = [(code, status)]
    with pytest.raises(DeployError, match=fragments) as error:
        api.deploy(stub_bundle)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("changes", "deployed"), [(9, True), (10, False)])
def test_update_is_repeated_if_the_version_changed(
    api: Api, stub_bundle: LoadedBundle, changes: int, deployed: bool
) -> None:
    """As when KServe's controller writes the status between a read and the update."""
    api.patch_errors = [(409, api_status("the object has been modified"))] * changes
    if deployed:
        assert api.deploy(stub_bundle)
        return
    with pytest.raises(DeployError, match="changed 10 times"):
        api.deploy(stub_bundle)


def test_missing_service_and_missing_kserve_are_distinguished(
    api: Api, stub_bundle: LoadedBundle
) -> None:
    api.service = None
    with pytest.raises(DeployError, match=r'"grocer" not found; apply an overlay of manifests/'):
        api.deploy(stub_bundle)
    api.service = {}
    with pytest.raises(DeployError, match="install KServe"):
        api.deploy(stub_bundle)


def test_unreachable_api_is_one_line(at_once: None) -> None:
    with Api({}) as api:
        cluster = api.cluster
    with pytest.raises(DeployError, match=r"http://127.* unreachable") as error:
        cluster.inference_service("grocer")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "kind", "found"),
    [
        ("<html>Sign in</html>", "text/html", "an HTML page"),
        ('{"items": [', "application/json", "invalid JSON"),
        (b"\xff", "application/json", "invalid JSON"),
        ("[]", "application/json", "invalid JSON"),
    ],
)
def test_answer_of_another_server_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    serve: Serve,
    content: str | bytes,
    kind: str,
    found: str,
) -> None:
    class Other(Handler):
        def do_GET(self) -> None:
            self.reply(200, content, {"content-type": kind})

    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", serve(Other))))
    api = Cluster("grocer")
    for request in (api.inference_service, api.http_route, api.deployment, api.pods):
        with pytest.raises(DeployError, match=f"unreachable: it answers with {found}"):
            request("grocer")


@pytest.mark.parametrize("end", ["expired", "incomplete", "disconnected"])
def test_watch_is_restarted(api: Api, stub_bundle: LoadedBundle, end: str) -> None:
    api.pod_states[stub_bundle.digest] = NOT_READY
    api.watches = [end, "ready"]
    assert api.deploy(stub_bundle, timeout_seconds=60.0)
    assert api.watches == []


def test_change_is_noticed_before_the_watch_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, serve: Serve
) -> None:
    ended = threading.Event()

    class Watched(Handler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            event = b'{"type": "ADDED", "object": {}}\n'
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            ended.wait(20)
            self.close_connection = True

    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", serve(Watched))))
    changes = Cluster("grocer").watch_deployments("a=b", 5)
    next(changes)
    started = time.monotonic()
    next(changes)
    assert time.monotonic() - started < 4  # the watch ends after five seconds
    ended.set()


def test_forbidden_watch_is_not_restarted(api: Api, stub_bundle: LoadedBundle) -> None:
    api.pod_states[stub_bundle.digest] = NOT_READY
    api.watches = ["forbidden"]
    with pytest.raises(DeployError, match=r"\(403\): .*cannot watch.*Role grocer-deploy"):
        api.deploy(stub_bundle, timeout_seconds=60.0)


def test_service_address_has_its_port_or_that_of_its_pods(api: Api) -> None:
    assert api.cluster.address("grocer-predictor") == "http://grocer-predictor.grocer.svc:80"
    api.headless = True
    assert api.cluster.address("grocer-predictor") == "http://grocer-predictor.grocer.svc:8080"


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ('{"level": "error"}\n\n', '{"level": "error"}'),
        ("unable to retrieve container logs for containerd://29", ""),
        ("x" * 1000, "x" * 500),
    ],
)
def test_last_log_line(api: Api, log: str, line: str) -> None:
    api.log = log
    assert api.cluster.last_log_line("pod", "kserve-container") == line


@pytest.mark.parametrize("text", [None, "", "clusters: [", "text", "[]", "\xff"])
def test_kubeconfig_that_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(DeployError, match=rf"{path} cannot be loaded: .*; set KUBECONFIG"):
        Cluster("grocer")


def test_token_file_can_end_with_a_line_break(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, api: Api
) -> None:
    (tmp_path / "token").write_text("secret\n")
    path = write_kubeconfig(tmp_path / "config", api.url, tokenFile="token")
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert Cluster("grocer").inference_service("grocer")


def test_mounted_token_of_the_deploy_account_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kubernetes, "DEPLOY_TOKEN", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_text("certificate")
    api, _ = connect()
    assert api.configuration.host == "https://10.0.0.1:443"
    assert api.configuration.api_key["authorization"] == "bearer secret"


def test_no_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(NoKubeconfigError, match="set KUBECONFIG"):
        Cluster("grocer")

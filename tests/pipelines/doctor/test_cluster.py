"""Cluster checks of `grocer doctor`, over HTTP."""

import socket

import pytest
from kubernetes.config import kube_config

from pipelines.doctor import report
from pipelines.doctor.cluster import GROUP, cluster, kubeflow
from pipelines.doctor.report import blocking
from pipelines.kubeflow.client import Server
from tests.fixtures import kubeflow_server
from tests.fixtures.kubeflow_server import Kubeflow
from tests.fixtures.kubernetes_api import Api, api_status, write_kubeconfig
from tests.fixtures.signing_keys import make_key

VERSION = "/version/"
CONTROLLER = "/apis/apps/v1/namespaces/kserve/deployments/kserve-controller-manager"
TRUST = "/api/v1/namespaces/grocer/configmaps/grocer-trust"
RUNTIME = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/kubeflow/trainingruntimes/grocer"
QUEUE = "/apis/kueue.x-k8s.io/v1beta2/namespaces/kubeflow/localqueues/team-a"
ALPHA, BETA = f"/apis/{GROUP}/v1alpha1", f"/apis/{GROUP}/v1beta1"


def version(minor):
    """The response of /version."""
    build = ("buildDate", "compiler", "gitCommit", "gitTreeState", "goVersion", "platform")
    release = {"major": "1", "minor": minor, "gitVersion": f"v1.{minor.rstrip('+')}.0"}
    return dict.fromkeys(build, "") | release


def api_resources(version, *names):
    """The discovery document of an API version."""
    common = {"kind": "", "namespaced": True, "singularName": "", "verbs": ["get"]}
    resources = [common | {"name": name} for name in names]
    return {"groupVersion": f"{GROUP}/{version}", "resources": resources}


def controller(version="v0.21.0", **status):
    """The Deployment of KServe's controller."""
    containers = [
        {"name": "kube-rbac-proxy", "image": "proxy:1"},
        {"name": "manager", "image": f"registry:5000/kserve/kserve-controller:{version}"},
    ]
    template = {"spec": {"containers": containers}}
    return {"spec": {"selector": {}, "template": template}, "status": status}


@pytest.fixture(scope="module")
def server():
    with Api({}) as api:
        yield api


@pytest.fixture
def api(server, monkeypatch, tmp_path):
    """A cluster of KUBECONFIG that passes all checks; tests change its responses."""
    server.responses = {
        VERSION: (200, version("36+")),
        ALPHA: (200, api_resources("v1alpha1", "servingruntimes", "servingruntimes/status")),
        BETA: (200, api_resources("v1beta1", "inferenceservices")),
        CONTROLLER: (200, controller(availableReplicas=1)),
        RUNTIME: (200, {}),
        TRUST: (
            200,
            {"data": {"release.pem": make_key(tmp_path)[1].read_text(), "gate.json": "{}"}},
        ),
    }
    monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", server.url)))
    return server


def results():
    """State and text of each finding, by what was checked."""
    findings = cluster()
    assert all(finding.next for finding in findings if finding.state == "failed")
    return {finding.what: (finding.state, finding.found) for finding in findings}


def test_cluster_with_kserve(api):
    assert results() == {
        "Kubernetes": ("ok", "context x, v1.36.0"),
        "KServe": ("ok", "serving.kserve.io: servingruntimes v1alpha1, inferenceservices v1beta1"),
        "KServe's controller": ("ok", "available, kserve-controller:v0.21.0"),
        "Trusted keys": (
            "ok",
            "ConfigMap grocer-trust in namespace grocer: release.pem; a gate policy",
        ),
        "Kubeflow Trainer": ("ok", "TrainingRuntime grocer in namespace kubeflow"),
    }


def test_cluster_without_kserve(api):
    del api.responses[ALPHA], api.responses[BETA]
    checks = results()
    assert checks["Kubernetes"][0] == "ok"
    assert checks["KServe"] == (
        "failed",
        "serving.kserve.io: servingruntimes v1alpha1, inferenceservices v1beta1 not installed",
    )


NAMES = {
    VERSION: "Kubernetes",
    BETA: "KServe",
    CONTROLLER: "KServe's controller",
    TRUST: "Trusted keys",
    RUNTIME: "Kubeflow Trainer",
}
NO_SERVICES = "serving.kserve.io: inferenceservices v1beta1 not installed"
NO_POD = "no available pod, kserve-controller:v0.21.0 → kubectl -n kserve logs"


@pytest.mark.parametrize(
    ("path", "status", "body", "state", "text"),
    [
        (BETA, 404, "404 page not found", "failed", NO_SERVICES),
        (BETA, 200, api_resources("v1beta1", "trainedmodels"), "failed", NO_SERVICES),
        (VERSION, 200, version("31"), "failed", "context x, v1.31.0 → upgrade to 1.32"),
        (CONTROLLER, 200, controller(replicas=1), "failed", NO_POD),
        (CONTROLLER, 200, controller("v0.20.9", availableReplicas=1), "failed", "upgrade to 0.21"),
        (CONTROLLER, 404, api_status("deployments"), "failed", "not in namespace kserve"),
        (CONTROLLER, 403, api_status("deployments"), "optional", "not checked"),
        (TRUST, 404, api_status("configmaps"), "optional", "the overlays' predictors require it"),
        (TRUST, 403, api_status("configmaps"), "optional", "not checked"),
        (TRUST, 200, {"data": {}}, "failed", "no trusted key found"),
        (TRUST, 200, {"data": {"release.pem": "x"}}, "failed", "release.pem: "),
        (TRUST, 200, {"data": {"release.key": "x"}}, "failed", "release.key: unknown file"),
        (RUNTIME, 404, "404 page not found", "optional", "not installed"),
        (RUNTIME, 404, api_status("not found"), "optional", "manifests/trainer"),
        (RUNTIME, 403, api_status("trainingruntimes"), "optional", "not checked"),
    ],
)
def test_part_that_is_missing_invalid_or_not_readable(api, path, status, body, state, text):
    api.responses[path] = status, body
    (found,) = (each for each in cluster() if each.what == NAMES[path])
    assert found.state == state
    assert text in f"{found.found} → {found.next}"


def local_queue(status="True", message=""):
    """A LocalQueue with three workloads that wait."""
    active = {"type": "Active", "status": status, "message": message}
    return {"status": {"conditions": [active], "pendingWorkloads": 3}}


@pytest.mark.parametrize(
    ("response", "state", "text"),
    [
        ((200, local_queue()), "ok", "3 workloads wait"),
        ((200, local_queue("False", "no ClusterQueue")), "failed", "no ClusterQueue"),
        ((404, api_status('localqueues "team-a" not found')), "failed", "not found"),
        ((404, "404 page not found"), "failed", "404"),
    ],
)
def test_queue_must_exist_and_be_active(api, response, state, text):
    api.responses[QUEUE] = response
    finding = cluster("kubeflow", "team-a")[-1]
    assert (finding.what, finding.state) == ("Kueue", state)
    assert text in finding.found
    assert blocking([finding]) == ([finding] if state == "failed" else [])


def test_queue_that_cannot_be_checked_is_a_failure(api):
    api.responses[VERSION] = 401, api_status("no such token")
    what = [finding.what for finding in blocking(cluster("kubeflow", "team-a"))]
    assert what == ["Kubernetes", "KServe", "Kueue"]


@pytest.mark.parametrize(("path", "what"), [(VERSION, "Kubernetes"), (BETA, "KServe")])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (api_status("no such token"), "no such token"),
        ("<html>", "Unauthorized"),
        ("[]", "Unauthorized"),
    ],
)
def test_rejected_request_is_reported_with_its_message(api, path, what, body, message):
    api.responses[path] = 401, body
    assert results()[what] == ("failed", f"{api.url} rejected the request (401): {message}")


def test_unreachable_cluster(monkeypatch, tmp_path):
    with Api({}) as stopped:
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path / "config", stopped.url)))
    checks = results()
    assert checks["Kubernetes"] == ("failed", f"{stopped.url} unreachable: Connection refused")
    assert checks["KServe"] == ("failed", "not checked")


def test_cluster_that_does_not_respond(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "TIMEOUT", 0.2)
    with Api({}) as stopped:
        config = write_kubeconfig(tmp_path / "config", stopped.url)
    with socket.create_server(("127.0.0.1", stopped.server_port)):  # accepts, sends nothing
        monkeypatch.setenv("KUBECONFIG", str(config))
        assert results()["Kubernetes"] == ("failed", "no response within 0.2 s")


def test_invalid_kubeconfig(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    state, text = results()["Kubernetes"]
    assert state == "failed"
    assert f"kubeconfig {tmp_path / 'absent'} cannot be loaded" in text


def test_no_kubeconfig_is_not_a_failure(monkeypatch, tmp_path):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert {state for state, _ in results().values()} == {"optional"}


def test_kubeflow_with_its_version(monkeypatch):
    response = {"commit_sha": "0", "tag_name": "2.17.0", "multi_user": True}
    health = ("GET", "/healthz", lambda server, query, body: (response,))
    monkeypatch.setattr(kubeflow_server, "ROUTES", [health])
    with Kubeflow() as server:
        (finding,) = kubeflow(Server(host=server.url), False)
    assert finding.state == "ok"
    assert (
        finding.found == f"version 2.17.0, API v2beta1 at {server.url}, multi-user: set --namespace"
    )


def test_kubeflow_host_from_environment(monkeypatch):
    with Kubeflow() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        (finding,) = kubeflow(Server(), False)
    assert (finding.state, finding.needed) == ("ok", False)
    assert finding.found.startswith("version unknown, API v2beta1 at ")


@pytest.mark.parametrize("user", [{}, {"token": "secret"}, {"tokenFile": "token"}])
def test_kubeflow_through_the_cluster(api, monkeypatch, tmp_path, user):
    (tmp_path / "token").write_text("secret\n")
    # kfp's client uses the value of KUBECONFIG when the Kubernetes client was imported.
    path = str(write_kubeconfig(tmp_path / "config", api.url, **user))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", path)
    path = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy/apis/v2beta1/healthz"
    api.responses[path] = 200, {"tag_name": "2.17.0"}
    (finding,) = kubeflow(Server(), True)
    assert finding.state == "ok"
    assert Server().connect()  # sends two requests
    del api.responses[path]
    (finding,) = kubeflow(Server(), True)
    assert (finding.state, finding.needed) == ("failed", False)
    assert "(404)" in finding.found


def test_kubeflow_that_requires_a_token(monkeypatch):
    monkeypatch.delenv("KF_PIPELINES_TOKEN", raising=False)
    with Kubeflow(token="secret") as server:
        (finding,) = kubeflow(Server(host=server.url), False)
        assert (finding.state, finding.needed) == ("failed", True)
        assert finding.found == f"{server.url} rejected the request (401): no token"
        assert "KF_PIPELINES_TOKEN" in finding.next
        monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret")
        (finding,) = kubeflow(Server(host=server.url), False)
        assert finding.state == "ok"


def test_unreachable_kubeflow_is_needed_only_if_named():
    (finding,) = kubeflow(Server(host="http://127.0.0.1:9"), False)
    assert (finding.state, finding.needed) == ("failed", True)
    assert finding.found == "http://127.0.0.1:9 unreachable: Connection refused"
    (finding,) = kubeflow(Server(), False)
    assert finding.state == "optional"


@pytest.mark.parametrize(
    ("answer", "text"), [((404, {}), "(404)"), ((200, []), "not Kubeflow Pipelines")]
)
def test_host_that_is_not_kubeflow(answer, text):
    with Api({}) as other:
        other.responses["/apis/v2beta1/healthz"] = answer
        (finding,) = kubeflow(Server(host=other.url), False)
    assert finding.state == "failed"
    assert text in finding.found
